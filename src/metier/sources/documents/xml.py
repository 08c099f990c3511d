"""XML as prose: elements that hold text are paragraphs, titles are headings, rows of a table stay together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias
from xml.parsers import expat

from metier.errors import Fault, SourceError
from metier.sources.documents.blocks import Builder, Document, table_row, tidy

__all__ = ["read_xml_prose"]

_TITLES = {"title", "head", "heading", "subtitle", "caption", "label"}
_ROWS = {"tr", "row"}
_CELLS = {"td", "th", "entry", "cell"}
_ITEMS = {"li", "item", "list-item", "listitem"}
_DEEPEST = 200

_Piece: TypeAlias = "str | _Element"


class _Element:
    __slots__ = ("children", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.children: list[_Piece] = []

    def words(self) -> str:
        return "".join(item if isinstance(item, str) else item.words() for item in self.children)

    def is_text(self) -> bool:
        """Tell whether the element itself holds words: then everything in it is one paragraph."""
        return any(isinstance(item, str) and item.strip() for item in self.children)

    def elements(self) -> Iterator[_Element]:
        return (item for item in self.children if isinstance(item, _Element))


def read_xml_prose(text: str, shown: str) -> Document:
    """Return the document of an XML file; attributes are no text. Raises SourceError for XML that is not well-formed, declares entities or is too deep."""
    root = _parse(text, shown)
    builder = Builder()
    _walk(root, builder, 0)
    return builder.document()


def _local(name: str) -> str:
    return name.rpartition(":")[2].lower()


def _parse(text: str, shown: str) -> _Element:
    root = _Element("")
    stack = [root]
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def start(name: str, _: dict[str, str]) -> None:
        if len(stack) > _DEEPEST:
            raise ValueError(f"elements are nested more than {_DEEPEST} deep")
        element = _Element(_local(name))
        stack[-1].children.append(element)
        stack.append(element)

    def entity(*_: object) -> None:
        raise ValueError("the file declares entities of its own")

    def characters(data: str) -> None:
        stack[-1].children.append(data)

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = characters
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(text.encode("utf-8"), True)
    except expat.ExpatError as error:
        raise SourceError(Fault(f"not well-formed XML: {expat.errors.messages[error.code]}", shown, error.lineno, remedy="mend the file")) from None
    except ValueError as error:
        raise SourceError(Fault(str(error), shown, parser.CurrentLineNumber, remedy="write the text of the entities instead, or unfold the elements")) from None
    return root


def _walk(element: _Element, builder: Builder, depth: int) -> None:
    for child in element.elements():
        if child.name in _TITLES and not any(item.name in _TITLES for item in child.elements()):
            title = tidy(child.words())
            builder.title = builder.title or title or None
            builder.add("heading", title, level=min(max(depth, 1), 6))
        elif child.name in _ROWS:
            continue
        elif rows := [item for item in child.elements() if item.name in _ROWS]:
            cells = [[cell.words() for cell in row.elements() if cell.name in _CELLS] or [cell.words() for cell in row.elements()] for row in rows]
            builder.add("table", "\n".join(table_row(row) for row in cells if row))
            _walk(child, builder, depth + 1)
        elif child.is_text() or not any(True for _ in child.elements()):
            builder.add("list" if child.name in _ITEMS else "paragraph", f"{'- ' if child.name in _ITEMS else ''}{tidy(child.words())}".removesuffix("- "))
        else:
            _walk(child, builder, depth + 1)
