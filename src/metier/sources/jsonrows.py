"""JSON as rows that lie deeper: a dotted path leads through objects, and every list on the way is walked."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metier.errors import Fault, SourceError, nearest
from metier.sources.encoding import open_text
from metier.sources.paths import keys_of
from metier.sources.rows import DECODER, LARGEST_START, LARGEST_WHOLE, Malformed, Row, Rows, encodable, read_json

__all__ = ["read_element"]

_ANY = "*"
_KEY = "@key"
_LINES = {".jsonl", ".ndjson"}
_BLOCK = 1 << 16
_NAMED = 20
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escape that may be half of a surrogate pair; a text with a half alone cannot be written down again."""


@dataclass(frozen=True, slots=True)
class _Top:
    """An object that the path begins at: its line (0 for a whole file), its place, and whether a text in it may hold half of a surrogate pair."""

    value: dict[str, Any]
    line: int = 0
    place: str = ""
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class _Node:
    """A value on the way to the rows: how many keys led to it, where it is, and the objects around it with the keys taken in them."""

    value: Any
    depth: int
    place: str
    above: tuple[tuple[Mapping[str, Any], str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Miss:
    """A place at which the path does not go on: the key that was looked for and what is there instead."""

    key: str
    place: str
    value: Any

    @property
    def reason(self) -> str:
        """The reason of the drop; it never holds content."""
        return f"missing_key:{self.key}" if isinstance(self.value, dict) else f"wrong_type:no object with {self.key}"

    @property
    def keys(self) -> list[str]:
        """Some of the keys that are there."""
        return list(itertools.islice(self.value, _NAMED)) if isinstance(self.value, dict) else []

    def fault(self, element: str, shown: str) -> Fault:
        """Return the fault of a file in which no row is found."""
        keys = self.keys
        there = f"it has {', '.join(keys)}" if keys else "it is empty" if isinstance(self.value, dict) else "it is no object"
        there = "it is null" if self.key in keys else there
        what = f"the file has no part {element!r} that holds rows: {self.place or 'the top'} has no {self.key!r}; {there}"
        return Fault(what, shown, key="rows", remedy=nearest(self.key, keys) if keys else "write the keys from the top to the rows: data.items")


def read_element(path: Path, shown: str, encoding: str, element: str, outer: Collection[str] = ()) -> Rows:
    """Yield the objects at the end of a path of keys (`data.paragraphs.qas`, see `keys_of`); lists on the way and at the end are walked.

    `*` stands for every key of an object; where it is the last, a row has its key as `@key`. The path begins at the one object that a file is, or at
    each object of its list or of its lines. `outer` names values around the rows that each row has too, by their path from the same beginning:
    `/version`, `/data.title`, `/data.paragraphs.context`, and `/data.*@key` for a key that `*` stood for. A row's position is its place in the JSON.

    Raises SourceError for a file that is no JSON, and for one without a single row on the path, naming the key that is missing and those that are there.
    """
    steps = keys_of(element)
    found, first = 0, None
    for top in _tops(path, shown, encoding):
        if isinstance(top, Malformed):
            yield top
            continue
        for number, node in enumerate(_walk(_Node(top.value, 0, top.place), steps), 1):
            place = top.line or number
            if isinstance(node, _Miss):
                first = first or node
                row: Row | Malformed = Malformed(node.reason, place, ", ".join(node.keys), node.place)
            else:
                found += 1
                row = _row(node, steps, outer, place)
            sound = not top.doubtful or encodable(row.values if isinstance(row, Row) else row.raw)
            yield row if sound else Malformed("lone_surrogate", place, "", row.position)
    if first is not None and not found:
        raise SourceError(first.fault(element, shown))


def _tops(path: Path, shown: str, encoding: str) -> Iterator[_Top | Malformed]:
    """Yield the objects that the path begins at: the one that a file is, else those of its list or its lines."""
    whole = _whole_object(path, shown, encoding)
    if whole is not None:
        yield whole
        return
    with open_text(path, encoding) as stream:
        listed = stream.read(LARGEST_START).lstrip().startswith("[")
    for index, row in enumerate(read_json(path, shown, encoding)):
        position = f"[{index}]" if listed else f"line {row.place}"
        yield _Top(row.values, row.place, position) if isinstance(row, Row) else replace(row, position=position)


def _whole_object(path: Path, shown: str, encoding: str) -> _Top | None:
    """Return the object that a whole file is; None for a list and for lines of objects. Raises SourceError for broken and for very large ones."""
    if _LINES.intersection(path.suffixes):
        return None
    with open_text(path, encoding) as stream:
        text = stream.readline(LARGEST_START)
        while text and not text.strip():
            text = stream.readline(LARGEST_START)
        if not text.lstrip().startswith("{"):
            return None
        try:
            value = DECODER.decode(text)
        except (ValueError, RecursionError):
            text += stream.read(LARGEST_WHOLE + 1)
        else:
            more = any(block.strip() for block in iter(lambda: stream.read(_BLOCK), ""))
            return None if more else _Top(value, doubtful=_SURROGATE.search(text) is not None)
    try:
        value, end = DECODER.raw_decode(text, text.index("{"))
    except (ValueError, RecursionError) as error:
        if len(text) > LARGEST_WHOLE:
            raise SourceError(Fault(f"one JSON object of more than {LARGEST_WHOLE:,} characters", shown, remedy="write its rows one a line (.jsonl)")) from None
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        what = error.msg if isinstance(error, json.JSONDecodeError) else "a number or nesting beyond what JSON readers take"
        raise SourceError(Fault(f"broken JSON: {what}", shown, line, remedy="mend the file; is it cut off?")) from None
    return None if text[end:].strip() else _Top(value, doubtful=_SURROGATE.search(text) is not None)


def _walk(top: _Node, steps: list[str]) -> Iterator[_Node | _Miss]:
    """Yield the nodes at the end of the path, in the order of the file. Lists are walked without recursion, however deep they lie."""
    waiting: list[Iterator[_Node | _Miss]] = [iter([top])]
    while waiting:
        node = next(waiting[-1], None)
        if node is None:
            waiting.pop()
        elif isinstance(node, _Node) and (isinstance(node.value, list) or node.depth < len(steps)):
            waiting.append(_below(node, steps))
        else:
            yield node


def _below(node: _Node, steps: list[str]) -> Iterator[_Node | _Miss]:
    value = node.value
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield _Node(item, node.depth, f"{node.place}[{index}]", node.above)
        return
    step = steps[node.depth]
    keys = list(value) if step == _ANY and isinstance(value, dict) else [step]
    for key in keys:
        if not isinstance(value, dict) or (value.get(key) is None and step != _ANY):
            yield _Miss(key, node.place, value)
        else:
            yield _Node(value[key], node.depth + 1, _place(node, key), (*node.above, (value, key)))


def _place(node: _Node, key: str) -> str:
    if not key.isidentifier():
        return f"{node.place}[{json.dumps(key, ensure_ascii=not encodable(key))}]"
    joint = "" if not node.place else ", " if node.depth == 0 and node.place.startswith("line ") else "."
    return f"{node.place}{joint}{key}"


def _row(node: _Node, steps: list[str], outer: Collection[str], place: int) -> Row | Malformed:
    raw = json.dumps(node.value, ensure_ascii=False)
    if not isinstance(node.value, dict):
        return Malformed("not_an_object", place, raw, node.place)
    around = {name: value for name in outer if (value := _around(name, node, steps)) is not None}
    values = {**around, **node.value, **({_KEY: node.above[-1][1]} if steps[-1] == _ANY else {})}
    return Row(values, place, raw, node.place)


def _around(name: str, node: _Node, steps: list[str]) -> Any:
    """Return the value around a row that `/data.title` names, or None. It is looked for in the innermost object on the row's own path."""
    parts = keys_of(name.removeprefix("/").removesuffix(_KEY))
    if name.endswith(_KEY):
        return node.above[len(parts) - 1][1] if parts == steps[: len(parts)] else None
    level = 0
    while level < min(len(parts), len(steps)) - 1 and parts[level] == steps[level]:
        level += 1
    value: Any = node.above[level][0]
    for key in parts[level:]:
        value = value.get(key) if isinstance(value, dict) else None
    return value
