"""Plain text as a document: paragraphs are what empty lines divide, or the lines themselves where nobody wrapped them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from metier.sources.documents.blocks import Block, Document, Kind
from metier.sources.documents.rules import rule

__all__ = ["read_text"]

_GAP = re.compile(r"\n(?:[^\S\n\u3000]*\n)+")
_COLUMNS = re.compile(r"\t|\S {3,}\S| \| ")


def read_text(text: str) -> Document:
    """Return the document of a plain text; its text is the file's own, so that places in it are places in the file."""
    parts = [block for block in _parts(text) if block.start < block.end]
    if _is_wrapped([text[block.start : block.end] for block in parts]):
        return Document(text, tuple(parts))
    return Document(text, tuple(line for block in parts for line in _lines(text, block)))


def _parts(text: str) -> Iterator[Block]:
    start = 0
    for gap in [*_GAP.finditer(text), None]:
        end = gap.start() if gap else len(text)
        whole = text[start:end]
        if whole.strip():
            begin = start + len(whole) - len(whole.lstrip("\n"))
            yield Block(_kind(whole), begin, start + len(whole.rstrip()))
        start = gap.end() if gap else len(text)


def _kind(text: str) -> Kind:
    lines = [line.strip() for line in text.strip().split("\n")]
    if len(lines) > 1 and all(_COLUMNS.search(line) for line in lines):
        return "table"
    if all(rule("list_item").match(line) for line in lines):
        return "list"
    return "paragraph"


def _is_wrapped(parts: Sequence[str], *, widest: int = 120, share: float = 0.7, near: float = 0.75) -> bool:
    """Tell whether lines were broken to a width, so that a paragraph goes on over its line ends.

    They were if `share` of the lines that another line of their paragraph follows are at least `near` as long as the longest twentieth of them, and
    that is no more than `widest` characters: nobody writes paragraphs of one length.
    """
    lengths = sorted(len(line) for part in parts for line in part.split("\n")[:-1])
    if not lengths:
        return True
    width = lengths[int(0.95 * (len(lengths) - 1))]
    return width <= widest and sum(length >= near * width for length in lengths) >= share * len(lengths)


def _lines(text: str, block: Block) -> Iterator[Block]:
    """Yield the lines of a paragraph as paragraphs; tables and lists stay together."""
    if block.kind != "paragraph":
        yield block
        return
    start = block.start
    for line in text[block.start : block.end].split("\n"):
        if line.strip():
            yield Block(_kind(line), start, start + len(line.rstrip()))
        start += len(line) + 1
