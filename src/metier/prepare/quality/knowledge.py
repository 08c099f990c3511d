"""A knowledge base of the user's own documents, searched by BM25 (Robertson and Zaragoza 2009), Chinese by pairs of letters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metier.digest import digest_of
from metier.errors import Fault, InputError
from metier.prepare.quality.terms import terms
from metier.prepare.sentences import articles, sentences

__all__ = ["KnowledgeBase", "Passage", "passages_of", "read_passages"]

_PASSAGE = 600


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document that is found as one: where it stands, the document's title, its text."""

    uri: str
    title: str
    text: str


def passages_of(uri: str, text: str, *, title: str | None = None, size: int = _PASSAGE) -> Iterator[Passage]:
    """Yield the articles of a document, longer ones in pieces of whole sentences of about `size` characters."""
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    name = title or (first.lstrip("# ").strip() if len(first) <= 60 else Path(uri).stem)
    for start, end in articles(text):
        piece = text[start:end].strip()
        if len(piece) <= size:
            if piece:
                yield Passage(uri, name, piece)
            continue
        begin = 0
        for low, high in sentences(piece):
            if high - begin > size and low > begin:
                yield Passage(uri, name, piece[begin:low].strip())
                begin = low
        yield Passage(uri, name, piece[begin:].strip())


def read_passages(path: Path) -> list[Passage]:
    """Return the passages of a file or of all .txt, .md and .jsonl files (with `text`, and `title` if there is one) below a folder.

    Raises InputError for a path that is not there, holds no such file, or holds one that cannot be read; all faults at once.
    """
    files = sorted(item for item in path.rglob("*") if item.suffix in {".txt", ".md", ".jsonl"} and item.is_file()) if path.is_dir() else [path]
    faults: list[Fault] = []
    found: list[Passage] = []
    for file in files:
        try:
            found += _read(file)
        except FileNotFoundError:
            faults.append(Fault("there is no such file or folder", file, key="prepare.quality.knowledge", remedy="check the path"))
        except (UnicodeDecodeError, OSError) as error:
            faults.append(Fault(f"cannot be read ({type(error).__name__})", file, key="prepare.quality.knowledge", remedy="save it as UTF-8 text"))
        except InputError as error:
            faults += error.faults
    if not found and not faults:
        faults.append(Fault("holds no text", path, key="prepare.quality.knowledge", remedy="give .txt, .md or .jsonl files"))
    if faults:
        raise InputError(faults)
    return found


def _read(file: Path) -> list[Passage]:
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix != ".jsonl":
        return list(passages_of(str(file), text))
    found: list[Passage] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found += passages_of(f"{file}:{number}", str(row["text"]), title=row.get("title") or file.stem)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(Fault("not a JSON object with `text`", file, number, "prepare.quality.knowledge", "write one object a line")) from None
    return found


class KnowledgeBase:
    """Passages and an inverted index over their terms, as flat arrays."""

    def __init__(self, passages: Iterable[Passage], *, k1: float = 1.5, b: float = 0.75) -> None:
        """Index passages; `k1` and `b` are BM25's customary values. Raises InputError without any passage."""
        self.passages = tuple(passages)
        if not self.passages:
            raise InputError(Fault("the knowledge base holds no passage", key="prepare.quality.knowledge"))
        self.digest = digest_of([[passage.title, passage.text] for passage in self.passages])
        self._numbers: dict[str, int] = {}
        owners: list[int] = []
        names: list[int] = []
        counts: list[int] = []
        lengths = np.zeros(len(self.passages), dtype=np.float32)
        for place, passage in enumerate(self.passages):
            found = Counter(terms(f"{passage.title}\n{passage.text}"))
            lengths[place] = found.total()
            for term, count in found.items():
                names.append(self._numbers.setdefault(term, len(self._numbers)))
                owners.append(place)
                counts.append(count)
        order = np.argsort(np.asarray(names, dtype=np.int64), kind="stable")
        self._owners = np.asarray(owners, dtype=np.int32)[order]
        ordered = np.asarray(names, dtype=np.int64)[order]
        self._starts = np.searchsorted(ordered, np.arange(len(self._numbers) + 1))
        frequency = np.diff(self._starts)
        self.weights = np.log1p((len(self.passages) - frequency + 0.5) / (frequency + 0.5)).astype(np.float32)
        self._unknown = float(np.log1p(2 * len(self.passages) + 1))
        often = np.asarray(counts, dtype=np.float32)[order]
        norm = k1 * (1 - b + b * lengths / max(float(lengths.mean()), 1.0))
        self._impacts = self.weights[ordered] * often * (k1 + 1) / (often + norm[self._owners])
        self._sets: dict[int, frozenset[str]] = {}

    def weight(self, term: str) -> float:
        """Return how much a term tells: ln(1 + (N - n + .5) / (n + .5)) for a term in n of N passages."""
        number = self._numbers.get(term)
        return self._unknown if number is None else float(self.weights[number])

    def search(self, query: Sequence[str], count: int) -> list[int]:
        """Return the numbers of the `count` passages that fit the terms of a query best, best first; equal ones in their order."""
        scores = np.zeros(len(self.passages), dtype=np.float32)
        for term in sorted(set(query)):
            number = self._numbers.get(term)
            if number is not None:
                part = slice(self._starts[number], self._starts[number + 1])
                scores[self._owners[part]] += self._impacts[part]
        count = min(count, len(scores))
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= max(float(least), 1e-9))
        return [int(place) for place in places[np.argsort(-scores[places], kind="stable")][:count]]

    def terms_of(self, number: int) -> frozenset[str]:
        """Return the distinct terms of a passage and its title."""
        if number not in self._sets:
            passage = self.passages[number]
            self._sets[number] = frozenset(terms(f"{passage.title}\n{passage.text}"))
        return self._sets[number]

    def contained(self, query: Sequence[str], number: int) -> float:
        """Return the share of a query's terms, by weight, that stand in a passage."""
        wanted = {term: self.weight(term) for term in sorted(set(query))}
        total = sum(wanted.values())
        there = self.terms_of(number)
        return sum(weight for term, weight in wanted.items() if term in there) / total if total else 0.0
