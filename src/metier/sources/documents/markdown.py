"""Markdown as a document: headings, paragraphs, lists, tables and code, at their places in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from metier.sources.documents.blocks import Block, Document, Kind, LeftOut
from metier.sources.documents.outline import heading_title
from metier.sources.documents.rules import rule

__all__ = ["read_markdown"]

_COMMENT = re.compile(r"^[ \t]*<!--.*?-->[ \t]*$", re.DOTALL | re.MULTILINE)
_SETTINGS = re.compile(r"\A---[ \t]*\n.*?\n(?:---|\.\.\.)[ \t]*(?=\n|\Z)", re.DOTALL)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_DELIMITER = re.compile(r"[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_RULE = re.compile(r" {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")


def read_markdown(text: str) -> Document:
    """Return the document of a Markdown text; comments on lines of their own and settings between `---` at its head are left out."""
    left = [LeftOut(found.start(), found.end(), "comment") for found in _COMMENT.finditer(text)]
    if head := _SETTINGS.match(text):
        left = [LeftOut(0, head.end(), "settings"), *(item for item in left if item.start >= head.end())]
    blanked = list(text)
    for item in left:
        blanked[item.start : item.end] = [character if character == "\n" else " " for character in text[item.start : item.end]]
    blocks = tuple(_Scanner("".join(blanked)).blocks())
    title = next((heading_title(text[block.start : block.end]) for block in blocks if block.kind == "heading" and block.level == 1), None)
    return Document(text, blocks, title or None, tuple(left))


@dataclass(slots=True)
class _Scanner:
    """Walks over the lines and keeps the block that is open."""

    text: str
    _open: list[tuple[int, str]] = field(default_factory=list)
    _kind: Kind = "paragraph"

    def blocks(self) -> Iterator[Block]:
        fence = ""
        start = 0
        for line in self.text.split("\n"):
            if fence:
                self._open.append((start, line))
                if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                    fence = ""
                    yield from self._close()
            elif found := _FENCE.match(line):
                yield from self._close()
                fence = found[1]
                self._open.append((start, line))
            else:
                yield from self._line(start, line)
            start += len(line) + 1
        yield from self._close()

    def _line(self, start: int, line: str) -> Iterator[Block]:
        if not line.strip():
            yield from self._close()
        elif heading := _HEADING.match(line):
            yield from self._close()
            yield Block("heading", start, start + len(line.rstrip()), len(heading[1]))
        elif self._open and self._kind == "paragraph" and (under := _UNDERLINE.match(line)) and len(self._open) == 1:
            first, _ = self._open.pop()
            yield Block("heading", first, start + len(line.rstrip()), 1 if under[1][0] == "=" else 2)
        elif self._open and self._kind == "paragraph" and "|" in line and _DELIMITER.match(line) and "|" in self._open[-1][1]:
            head = self._open.pop()
            yield from self._close()
            self._open, self._kind = [head, (start, line)], "table"
        elif self._open and self._kind == "table" and "|" not in line:
            yield from self._close()
            self._open.append((start, line))
        elif rule("list_item").match(line.lstrip()) and not _RULE.match(line) and not (self._open and self._kind == "table"):
            if self._kind != "list":
                yield from self._close()
            self._kind = "list"
            self._open.append((start, line))
        else:
            self._open.append((start, line))

    def _close(self) -> Iterator[Block]:
        if self._open:
            first, (last, line) = self._open[0][0], self._open[-1]
            end = last + len(line.rstrip())
            if self.text[first:end].strip():
                yield Block(self._kind, first, end)
        self._open, self._kind = [], "paragraph"
