"""From a document to chunks: stretches of its text that respect headings, articles, tables and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from metier.config import Settings
from metier.sources.documents.blocks import Block, Document
from metier.sources.documents.sentences import sentences

__all__ = ["Chunk", "ChunkSettings", "chunks"]

By: TypeAlias = Literal["auto", "heading", "article", "paragraph", "none"]

_LINES = re.compile(r"[^\n]*\n?")
_CODE = re.compile(r" {0,3}(?:`{3}|~{3})")
_CELLS = re.compile(r"(?<!\\)\|")


class ChunkSettings(Settings):
    """How documents become records. A sentence and a row of a table are never cut: one that is longer than a chunk is a chunk of its own."""

    characters: int = Field(default=1200, ge=50)
    """Characters that a chunk holds at most, unless one sentence or row is longer."""
    overlap: int = Field(default=0, ge=0)
    """Characters of whole sentences before a chunk that it repeats at most; never across a heading or an article."""
    by: By = "auto"
    """Borders that a chunk never crosses: those of articles, of headings or none (`paragraph` fills chunks with whole paragraphs); `none` leaves a
    document whole. `auto` takes articles where a document has them, else headings, else paragraphs."""
    tables: Literal["keep", "rows", "drop"] = "keep"
    """`keep`: a table stays in the text and is cut only between rows; `rows`: each row is a record, with the header's names in `row`; `drop`: tables
    leave, into the drop ledger."""
    headings: Literal["keep", "path"] = "keep"
    """`keep`: a heading stands at the head of the chunk that follows it; `path`: it stands only in the chunk's `section`."""

    @model_validator(mode="after")
    def _sound(self) -> ChunkSettings:
        if self.overlap >= self.characters:
            raise ValueError("overlap has to be smaller than characters")
        return self


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of a document's text with its first block, its last page, its part of the whole article or section, and a table row's cells.

    `text` begins at `start - repeated`: the repeated characters are those of the overlap.
    """

    start: int
    end: int
    block: Block
    last_page: int | None = None
    part: int = 1
    parts: int = 1
    repeated: int = 0
    row: tuple[tuple[str, str], ...] = ()
    dropped: str = ""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What is never cut: a heading, a sentence, an item, a row of a table; `block` is the one it belongs to."""

    start: int
    end: int
    block: Block


def chunks(document: Document, settings: ChunkSettings) -> list[Chunk]:
    """Return the chunks of a document in its order.

    Without overlap every character that is no white space stands in exactly one chunk, except what the document itself leaves out and, with
    `headings: path`, headings above other text. Chunks with `dropped` are tables that the settings leave out.
    """
    by = _by(document, settings)
    found: list[Chunk] = []
    for unit in _units(document, by):
        body = unit if settings.headings == "keep" else [block for block in unit if block.kind != "heading"] or unit
        found += _filled(document, body, settings, by)
    return found


def _by(document: Document, settings: ChunkSettings) -> By:
    if settings.by != "auto":
        return settings.by
    kinds = [block.kind for block in document.blocks]
    if kinds.count("article") >= 2:
        return "article"
    return "heading" if "heading" in kinds else "paragraph"


def _units(document: Document, by: By) -> Iterator[list[Block]]:
    """Yield the blocks between borders; headings begin a unit together with what follows them. What the document leaves out is a border too."""
    unit: list[Block] = []
    body = False
    for block in document.blocks:
        border = block.kind == "article" if by == "article" else False
        if by in ("article", "heading"):
            border = border or block.kind == "heading"
        gap = bool(unit) and any(unit[-1].end <= item.start < block.start for item in document.left_out)
        if unit and (gap or (body and border)):
            yield unit
            unit, body = [], False
        unit.append(block)
        body = body or block.kind != "heading"
    if unit:
        yield unit


def _filled(document: Document, unit: Sequence[Block], settings: ChunkSettings, by: By) -> list[Chunk]:
    """Return the chunks of one unit: tables that are set apart, and stretches of at most `characters` between them."""
    found: list[Chunk] = []
    run: list[Block] = []
    for block in unit:
        if block.kind == "table" and settings.tables != "keep":
            found += _packed(document.text, run, settings, by)
            run = []
            found += _rows(document.text, block) if settings.tables == "rows" else [Chunk(block.start, block.end, block, dropped="table_dropped")]
        else:
            run.append(block)
    found += _packed(document.text, run, settings, by)
    parts = sum(1 for chunk in found if not chunk.row and not chunk.dropped)
    part = 0
    numbered = []
    for chunk in found:
        plain = not chunk.row and not chunk.dropped
        part += plain
        numbered.append(replace(chunk, part=part, parts=parts) if plain else chunk)
    return numbered


def _packed(text: str, run: Sequence[Block], settings: ChunkSettings, by: By) -> list[Chunk]:
    """Fill chunks with pieces. A block that fits into a chunk is not divided; a heading stays with what follows it."""
    if not run:
        return []
    if by == "none":
        return [_chunk(text, [piece for block in run for piece in _pieces(text, block)])]
    found: list[list[_Piece]] = [[]]
    for block in run:
        current = found[-1]
        begins = current[0].start if current else block.start
        whole = block.end - block.start <= settings.characters
        if current and block.end - begins > settings.characters and whole:
            found.append(_headings(current))
            current = found[-1]
        for piece in _pieces(text, block):
            if current and piece.end - current[0].start > settings.characters and not all(item.block.kind == "heading" for item in current):
                found.append([])
                current = found[-1]
            current.append(piece)
    made = [_chunk(text, pieces) for pieces in found if pieces]
    return [made[0], *(_overlapping(text, before, chunk, settings.overlap) for before, chunk in pairwise(made))]


def _headings(current: list[_Piece]) -> list[_Piece]:
    """Take the headings at the end of a chunk away from it, for the next one, unless it has nothing else."""
    moved: list[_Piece] = []
    while len(current) > 1 and current[-1].block.kind == "heading" and any(piece.block.kind != "heading" for piece in current):
        moved.insert(0, current.pop())
    if current and all(piece.block.kind == "heading" for piece in current):
        moved, current[:] = [*current, *moved], []
    return moved


def _chunk(text: str, pieces: Sequence[_Piece]) -> Chunk:
    first = next((piece.block for piece in pieces if piece.block.kind != "heading"), pieces[0].block)
    start, end = pieces[0].start, pieces[-1].end
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    return Chunk(start, end, replace(first, page=pieces[0].block.page), pieces[-1].block.page)


def _pieces(text: str, block: Block) -> Iterator[_Piece]:
    if block.kind == "heading":
        spans = [(block.start, block.end)]
    elif block.kind in ("table", "list") or _CODE.match(text, block.start):
        spans = list(_lines(text, block))
    else:
        spans = list(sentences(text, block.start, block.end))
    for start, end in spans:
        yield _Piece(start, end, block)


def _lines(text: str, block: Block) -> Iterator[tuple[int, int]]:
    for found in _LINES.finditer(text, block.start, block.end):
        if found.end() > found.start():
            yield found.span()


def _overlapping(text: str, before: Chunk, chunk: Chunk, overlap: int) -> Chunk:
    """Let a chunk begin with the last whole sentences of the one before, as far as `overlap` characters go."""
    if not overlap:
        return chunk
    start = chunk.start
    for begin, _ in reversed(list(sentences(text, before.start, before.end))):
        if chunk.start - begin > overlap:
            break
        start = begin
    return replace(chunk, start=start, repeated=chunk.start - start)


def cells(line: str) -> list[str]:
    """Return the cells of a table's line: those between bars, or else what tabs or runs of blanks divide."""
    line = line.strip()
    if "|" in line:
        return [cell.replace("\\|", "|").strip() for cell in _CELLS.split(line.removeprefix("|").removesuffix("|"))]
    return [cell.strip() for cell in re.split(r"\t| {3,}", line)]


def _rows(text: str, block: Block) -> list[Chunk]:
    """Return each row of a table as a chunk whose cells are named by the first row, which is no chunk unless it is the only row."""
    found: list[Chunk] = []
    names: list[str] = []
    for start, end in _lines(text, block):
        line = text[start:end].rstrip()
        values = cells(line)
        if not line.strip() or (found and all(not value.strip(":-") for value in values)):
            continue
        found.append(Chunk(start, start + len(line), block, block.page, row=tuple(zip(names, values, strict=False))))
        names = names or [name or f"column {number}" for number, name in enumerate(values, 1)]
    return found[1:] or found
