"""The knowledge base: passages of documents or records, each with its id and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from metier.digest import digest_bytes, digest_of
from metier.errors import Fault, InputError
from metier.prepare.generate.retrieval import Index
from metier.records import Record, Source

__all__ = ["Knowledge", "Passage", "passages_of", "read_folder"]

_SUFFIXES = (".txt", ".md")
_BORDER = re.compile(r"\n\s*\n|(?=^#{1,6}\s)", re.MULTILINE)
_LONGEST, _SHORTEST = 600, 20


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document: its id (a digest), its text and its source."""

    id: str
    text: str
    source: Source | None


class Knowledge:
    """Passages, ready to be searched; `digest` names all of them together."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        """Raise InputError if there is no passage."""
        self.passages = tuple({passage.id: passage for passage in passages}.values())
        if not self.passages:
            raise InputError(
                Fault("the knowledge base holds no passage", key="prepare.generate", remedy="name a folder with .txt or .md files, or records with text")
            )
        self.digest = digest_of([passage.id for passage in self.passages])
        self._index = Index([passage.text for passage in self.passages])

    def find(self, question: str, count: int, *, lowest: float = 0.0) -> list[tuple[Passage, float]]:
        """Return at most `count` passages for a question with their scores, the best first."""
        return [(self.passages[number], score) for number, score in self._index.search(question, count, lowest=lowest)]


def _pieces(text: str) -> Iterator[str]:
    """Yield paragraphs, short ones joined to at most 600 characters; headings begin a new piece, longer paragraphs stay whole."""
    held = ""
    for part in (piece.strip() for piece in _BORDER.split(text)):
        if held and (len(held) + len(part) > _LONGEST or part.startswith("#")):
            yield held
            held = ""
        held = f"{held}\n{part}".strip()
    if held:
        yield held


def read_folder(folder: Path, *, licence: str, basis: str = "", root: Path | None = None) -> Iterator[Passage]:
    """Yield the passages of every .txt and .md file below a folder, in order of path; their sources are named relative to `root`, else the folder.

    Raises InputError for a folder that is missing and for every file that is not UTF-8.
    """
    if not folder.is_dir():
        raise InputError(Fault("there is no such folder", folder, key="knowledge", remedy="check the path"))
    faults = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()):
        data = path.read_bytes()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            faults.append(Fault(f"not UTF-8 (byte {error.start})", path, remedy="save the file as UTF-8"))
            continue
        digest, name = digest_bytes(data), path.relative_to(root or folder).as_posix()
        for number, piece in enumerate(_pieces(text)):
            if len(piece) >= _SHORTEST:
                yield _passage(piece, Source(name, digest, f"passage {number}", licence, basis))
    if faults:
        raise InputError(faults)


def passages_of(records: Iterable[Record]) -> Iterator[Passage]:
    """Yield the passages of records: their text, else the answers that are learnt. A passage's id is that of its text and source."""
    for record in records:
        text = record.text or "\n".join(message.content for message in record.messages if message.learn)
        for piece in _pieces(text):
            if len(piece) >= _SHORTEST:
                yield _passage(piece, record.source)


def _passage(text: str, source: Source | None) -> Passage:
    place = None if source is None else [source.uri, source.digest, source.position]
    return Passage(digest_of(["passage", text, place])[:32], text, source)
