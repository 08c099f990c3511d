"""XML as rows: every element of one name is a row; its children and attributes are the columns."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import IO
from xml.parsers import expat

from metier.errors import Fault, SourceError
from metier.sources.encoding import open_text
from metier.sources.rows import Row, Rows

__all__ = ["read_xml"]

_BLOCK = 1 << 16
_DECLARATION = re.compile(r"^\s*<\?xml[^>]*\?>")


class _Collector:
    """Gathers the elements named `element`: texts by path below it (`A/B`; those of inner elements included), attributes as `@name` and `A/B@name`."""

    def __init__(self, element: str, outer: Collection[str] = ()) -> None:
        self.element = element
        self._outer = dict.fromkeys(outer, "")
        self._above: list[str] = []
        self.rows: deque[Row] = deque()
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.EntityDeclHandler = self._entity
        self._path: list[str] | None = None
        self._values: dict[str, str] = {}
        self._line = 0

    def _entity(self, *_: object) -> None:
        raise ValueError("the file declares entities of its own")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if self._path is None:
            if name != self.element:
                self._above.append(name)
                place = _below_root(self._above)
                if self._outer.get(place):
                    self._outer[place] += "\n"
                self._outer.update({f"{place}@{key}": value for key, value in attributes.items() if f"{place}@{key}" in self._outer})
                return
            self._path, self._values, self._line = [], {}, self.parser.CurrentLineNumber
        else:
            self._path.append(name)
        place = "/".join(self._path)
        if place in self._values:
            self._values[place] += "\n"
        for key, value in attributes.items():
            self._values[f"{place}@{key}"] = value

    def _end(self, name: str) -> None:
        if self._path is None:
            self._above.pop()
            return
        if self._path:
            self._values.setdefault("/".join(self._path), "")
            self._path.pop()
            return
        values = {key: value.strip() for key, value in [*self._outer.items(), *self._values.items()] if key}
        self.rows.append(Row(values, self._line, json.dumps(values, ensure_ascii=False)))
        self._path = None

    def _text(self, data: str) -> None:
        if self._path is None:
            place = _below_root(self._above)
            if place in self._outer:
                self._outer[place] += data
            return
        for depth in range(1, len(self._path or ()) + 1):
            place = "/".join((self._path or [])[:depth])
            self._values[place] = self._values.get(place, "") + data


def _below_root(above: list[str]) -> str:
    return "/" + "/".join(above[1:])


def read_xml(path: Path, shown: str, encoding: str, element: str, outer: Collection[str] = ()) -> Rows:
    """Read the elements named `element`. `outer` names values outside of them that each row after them has too: paths below the file's root element
    (`/Focus`, `/Focus@id`) and attributes of the root (`/@url`).

    Entities declared by the file are refused (they can fetch files and fill the memory). Raises SourceError for XML that is not well-formed.
    """
    collector = _Collector(element, outer)
    with open_text(path, encoding) as stream:
        try:
            yield from _feed(collector, stream)
        except expat.ExpatError as error:
            raise SourceError(Fault(f"not well-formed XML: {expat.errors.messages[error.code]}", shown, error.lineno, remedy="mend the file")) from None
        except ValueError as error:
            line = collector.parser.CurrentLineNumber
            raise SourceError(Fault(str(error), shown, line, remedy="remove the DOCTYPE with its entities and write their text instead")) from None


def _feed(collector: _Collector, stream: IO[str]) -> Rows:
    block = stream.read(_BLOCK)
    # The text is decoded already; what the declaration says of the bytes no longer holds (its line ends stay).
    block = _DECLARATION.sub(lambda found: "\n" * found.group().count("\n"), block, count=1)
    while block:
        collector.parser.Parse(block, False)
        while collector.rows:
            yield collector.rows.popleft()
        block = stream.read(_BLOCK)
    collector.parser.Parse("", True)
    while collector.rows:
        yield collector.rows.popleft()
