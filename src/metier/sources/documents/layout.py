"""From words with places on a page to lines, columns and paragraphs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from metier.sources.documents.outline import begins_unit
from metier.sources.documents.rules import rule

__all__ = ["Line", "Typography", "columns", "join", "lines", "paragraphs"]

_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f]")
_HYPHEN = re.compile(r"[a-z]-$")
_BOLD = re.compile("bold|black|heavy", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text and its box in points, from the top left corner of its page."""

    text: str
    x0: float = 0.0
    x1: float = 0.0
    top: float = 0.0
    bottom: float = 0.0
    size: float = 0.0
    bold: bool = False


def _wide(text: str, place: int) -> bool:
    return bool(_WIDE.match(text[place])) if text else False


def lines(words: Sequence[dict[str, Any]]) -> list[Line]:
    """Put words that stand at one height together; a gap of more than three sizes divides lines (columns, numbers in a margin)."""
    rows: list[list[dict[str, Any]]] = []
    for word in sorted(words, key=lambda word: (word["bottom"], word["x0"])):
        if rows and abs(word["bottom"] - median(other["bottom"] for other in rows[-1][-8:])) <= 0.35 * word["size"]:
            rows[-1].append(word)
        else:
            rows.append([word])
    found = []
    for row in rows:
        row.sort(key=lambda word: word["x0"])
        start = 0
        for place in range(1, len(row) + 1):
            if place == len(row) or row[place]["x0"] - row[place - 1]["x1"] > 3 * row[place]["size"]:
                found.append(_line(row[start:place]))
                start = place
    return found


def _line(words: Sequence[dict[str, Any]]) -> Line:
    text = words[0]["text"]
    for before, word in pairwise(words):
        gap = word["x0"] - before["x1"]
        tight = _wide(text, -1) and _wide(word["text"], 0)
        text += ("" if gap < (0.8 if tight else 0.12) * word["size"] else " ") + word["text"]
    sizes = Counter(round(word["size"], 1) for word in words for _ in word["text"])
    bold = all(_BOLD.search(word["fontname"] or "") for word in words)
    box = min(word["x0"] for word in words), max(word["x1"] for word in words), min(word["top"] for word in words), max(word["bottom"] for word in words)
    return Line(re.sub(" {2,}", " ", text).strip(), *box, sizes.most_common(1)[0][0], bold)


def columns(found: Sequence[Line], width: float) -> list[Line]:
    """Return lines in reading order: where a page has two columns, the left one goes before the right one between lines that cross both.

    A page has two columns if at least six lines lie wholly on each side of a gap in its middle and the gap is crossed by less than a third as many.
    """
    ordered = sorted(found, key=lambda line: (line.top, line.x0))
    for share in (0.5, 0.47, 0.53, 0.44, 0.56):
        gap = width * share
        left, right = [line for line in ordered if line.x1 <= gap], [line for line in ordered if line.x0 >= gap]
        across = len(ordered) - len(left) - len(right)
        beside = sum(1 for line in left if any(abs(line.top - other.top) < line.size * 2 for other in right))
        if min(len(left), len(right)) >= 6 and beside >= 5 and across * 3 < len(left) + len(right):
            return _two(ordered, gap)
    return ordered


def _two(ordered: Sequence[Line], gap: float) -> list[Line]:
    found: list[Line] = []
    left: list[Line] = []
    right: list[Line] = []
    for line in ordered:
        if line.x1 <= gap:
            left.append(line)
        elif line.x0 >= gap:
            right.append(line)
        else:
            found += [*left, *right, line]
            left, right = [], []
    return [*found, *left, *right]


class Typography:
    """What is usual in a document: the size of its running text, and the larger sizes of its headings from the largest to the smallest."""

    def __init__(self, found: Sequence[Line]) -> None:
        weight: Counter[float] = Counter()
        for line in found:
            weight[line.size] += len(line.text)
        self.body = weight.most_common(1)[0][0] if weight else 0.0
        self.sizes = sorted((size for size in weight if size > 1.12 * self.body), reverse=True)
        self.bold = sum(len(line.text) for line in found if line.bold) > sum(weight.values()) / 2

    def level(self, paragraph: Sequence[Line]) -> int:
        """Return the level of a paragraph that is a heading by its type, else 0."""
        text = join(paragraph)
        if len(text) > 120 or len(paragraph) > 3:
            return 0
        if paragraph[0].size in self.sizes:
            return min(self.sizes.index(paragraph[0].size) + 1, 6)
        emphatic = not self.bold and all(line.bold for line in paragraph) and not rule("sentence_end").search(text)
        return min(len(self.sizes) + 1, 6) if emphatic else 0

    @staticmethod
    def is_item(text: str) -> bool:
        """Tell whether a text is an item of a list."""
        return bool(rule("list_item").match(text))

    def continues(self, before: str, line: Line) -> bool:
        """Tell whether a paragraph that ended a column or a page goes on with a line."""
        if rule("sentence_end").search(before) and not before.endswith((",", ";", "\uff0c", "\uff1b", "\u3001")):
            return False
        return not begins_unit(line.text) and not self.is_item(line.text)


def paragraphs(found: Sequence[Line], type_: Typography) -> Iterator[tuple[Line, ...]]:
    """Yield the lines of each paragraph. A new one begins after a gap, at an indent, with another size, at a unit or an item, and after a short last line."""
    current: list[Line] = []
    for line in found:
        if current and _breaks(current, line, type_):
            yield tuple(current)
            current = []
        current.append(line)
    if current:
        yield tuple(current)


def _breaks(current: Sequence[Line], line: Line, type_: Typography) -> bool:
    last = current[-1]
    if line.top < last.top or abs(line.size - last.size) > 0.1 * max(line.size, last.size) or line.bold != last.bold:
        return True
    if line.top - last.bottom > 0.75 * line.size or begins_unit(line.text) or Typography.is_item(line.text):
        return True
    left, right = min(item.x0 for item in current), max(item.x1 for item in current)
    indented = line.x0 > left + 1.4 * line.size if len(current) > 1 else False
    ended = bool(rule("sentence_end").search(last.text)) and last.x1 < right - 3 * line.size
    first = len(current) == 1 and bool(rule("sentence_end").search(last.text)) and line.x0 >= last.x0 and line.x1 > last.x1 + 3 * line.size
    return indented or ended or first


def join(found: Sequence[Line]) -> str:
    """Return lines as one text: without a blank between Han characters, and with a word that was divided at a line's end put together."""
    text = ""
    for line in found:
        if not text or not line.text:
            text += line.text
        elif _HYPHEN.search(text) and line.text[0].islower():
            text = text[:-1] + line.text
        else:
            text += line.text if _wide(text, -1) and _wide(line.text, 0) else f" {line.text}"
    return text
