"""Plain text as a document: paragraphs are what empty lines divide; lines of a list and of a table stay lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

from metier.sources.documents.blocks import Block, Document, Kind
from metier.sources.documents.rules import rule

__all__ = ["read_text"]

_GAP = re.compile(r"\n(?:[^\S\n\u3000]*\n)+")
_COLUMNS = re.compile(r"\t|\S {3,}\S| \| ")


def read_text(text: str) -> Document:
    """Return the document of a plain text; its text is the file's own, so that places in it are places in the file."""
    return Document(text, tuple(_blocks(text)))


def _blocks(text: str) -> Iterator[Block]:
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
    if len(lines) > 1 and all(rule("list_item").match(line) for line in lines):
        return "list"
    return "paragraph"
