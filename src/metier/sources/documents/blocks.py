"""A document as text with blocks: what stands where, under which headings, on which page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["Block", "Builder", "Document", "Kind", "LeftOut", "table_row", "tidy"]

Kind: TypeAlias = Literal["heading", "paragraph", "table", "list", "article"]


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a document's text, `start` inclusive and `end` exclusive, counted in code points.

    `level` is that of a heading (1 is the highest), `section` the titles of the headings above, `number` their ordinal numbers, `article` the label of
    the article that the block belongs to. A block of the kind `article` is the first of its article.
    """

    kind: Kind
    start: int
    end: int
    level: int = 0
    page: int | None = None
    section: tuple[str, ...] = ()
    number: tuple[int, ...] = ()
    article: str | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A stretch of the text that no chunk holds, and why: a comment, settings at the head of a Markdown file."""

    start: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class Document:
    """A document's text and its blocks in order. What is in no block is white space or in `left_out`.

    `counts` says how much the reader passed over by reason (scripts, page headers): none of it is in the text.
    `unread` are pages from which no text could be had, with the reason.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str | None = None
    left_out: tuple[LeftOut, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[tuple[int, str], ...] = ()


class Builder:
    """Puts a document's text together from pieces, for formats whose text is not their file."""

    def __init__(self) -> None:
        self.title: str | None = None
        self.counts: Counter[str] = Counter()
        self.unread: list[tuple[int, str]] = []
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    def add(self, kind: Kind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Append a block; empty text adds nothing. Items of one list stand on lines of their own, other blocks after an empty line."""
        text = text.strip()
        if not text:
            return
        if self._parts:
            gap = "\n" if kind == "list" and self._blocks[-1].kind == "list" else "\n\n"
            self._parts.append(gap)
            self._length += len(gap)
        self._blocks.append(Block(kind, self._length, self._length + len(text), level, page))
        self._parts.append(text)
        self._length += len(text)

    def document(self) -> Document:
        """Return the document of everything that was added."""
        return Document("".join(self._parts), tuple(self._blocks), self.title, (), dict(self.counts), tuple(self.unread))


def tidy(text: str) -> str:
    """Return text on one line: every run of white space is one blank."""
    return " ".join(text.split())


def table_row(cells: list[str]) -> str:
    """Return a row of a table as one line of text, in Markdown's form; a bar inside a cell is escaped."""
    return "| " + " | ".join(tidy(cell).replace("|", "\\|") for cell in cells) + " |"
