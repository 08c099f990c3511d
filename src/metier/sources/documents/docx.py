"""Word files (.docx) as documents: paragraphs, headings, lists, tables, notes and text boxes; what was deleted or hidden is not text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metier.errors import Fault, MissingExtra, SourceError
from metier.sources.documents.blocks import Builder, Document, table_row, tidy
from metier.sources.documents.grid import grid
from metier.sources.documents.limits import DAMAGE, check_archive

__all__ = ["read_docx"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_HEADING = re.compile(r"heading ?([1-9])", re.IGNORECASE)
_NOTES = {"footnoteReference": "footnotes", "endnoteReference": "endnotes"}
_BROKEN = "open it in a word processor and save it again; is it cut off, or an older .doc?"


def read_docx(path: Path, shown: str) -> Document:
    """Return the document of a Word file.

    Inserted text under revision is text, deleted and hidden text is not. Notes stand at the end, their references as `[1]`, `[e1]` in the text. The
    headers and footers of pages are left out and counted. Raises SourceError for a file that is broken, encrypted or unpacks to too much.
    """
    try:
        import docx
        from docx.opc.exceptions import PackageNotFoundError
        from lxml.etree import XMLSyntaxError
    except ImportError:
        raise MissingExtra("python-docx", "documents", "reading Word files") from None
    check_archive(path, shown)
    try:
        word = docx.Document(str(path))
        walker = _Walker(word)
        for element in word.element.body:
            walker.element(element)
        walker.finish()
    except (PackageNotFoundError, XMLSyntaxError, *DAMAGE) as error:
        raise SourceError(Fault(f"not a readable Word file ({type(error).__name__})", shown, remedy=_BROKEN)) from None
    return walker.builder.document()


class _Walker:
    """Adds the blocks of a Word file's body in their order."""

    def __init__(self, word: Any) -> None:
        self.builder = Builder()
        self._word = word
        self._boxes: list[Any] = []
        self._notes: list[tuple[str, str, str]] = []
        title = tidy(word.core_properties.title or "")
        self.builder.title = title if title and title.lower() != "word document" else None

    def element(self, element: Any) -> None:
        """Add a paragraph, a table or what a container (content control, inserted block) holds."""
        tag = element.tag
        if tag == f"{_W}p":
            self._paragraph(element)
        elif tag == f"{_W}tbl":
            self._table(element)
        elif tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml", f"{_W}smartTag"):
            for child in element:
                self.element(child)

    def _paragraph(self, element: Any) -> None:
        text = "".join(self._text(element)).strip()
        level, listed = self._style(element)
        if level == 0 and self.builder.title is None and text:
            self.builder.title = tidy(text)
        if level is not None:
            self.builder.add("heading", tidy(text), level=max(level, 1))
        else:
            self.builder.add("list" if listed else "paragraph", f"- {text}" if listed and text else text)
        while self._boxes:
            for inner in self._boxes.pop(0):
                self.element(inner)

    def _style(self, element: Any) -> tuple[int | None, bool]:
        """Return the level of a heading (0 for the document's title) or None, and whether the paragraph is an item of a list."""
        properties = element.find(f"{_W}pPr")
        if properties is None:
            return None, False
        listed = properties.find(f"{_W}numPr") is not None
        own = properties.find(f"{_W}outlineLvl")
        if own is not None and int(own.get(f"{_W}val", "9")) < 9:
            return int(own.get(f"{_W}val")) + 1, False
        named = properties.find(f"{_W}pStyle")
        style = self._by_id(named.get(f"{_W}val")) if named is not None else None
        if style is None:
            return None, listed
        if style.name == "Title":
            return 0, False
        if found := _HEADING.fullmatch(style.name or ""):
            return int(found[1]), False
        inherited = style.element.find(f"{_W}pPr/{_W}outlineLvl")
        if inherited is not None and int(inherited.get(f"{_W}val", "9")) < 9:
            return int(inherited.get(f"{_W}val")) + 1, False
        return None, listed or (style.name or "").startswith("List")

    def _by_id(self, name: str | None) -> Any:
        return next((style for style in self._word.styles if style.style_id == name), None)

    def _text(self, element: Any) -> Iterator[str]:
        for child in element:
            tag = child.tag
            if not isinstance(tag, str) or tag in (f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}rPr", f"{_W}instrText", _FALLBACK):
                self.builder.counts["deleted"] += tag in (f"{_W}del", f"{_W}moveFrom")
            elif tag == f"{_W}r" and child.find(f"{_W}rPr/{_W}vanish") is not None:
                self.builder.counts["hidden"] += 1
            elif tag == f"{_W}t":
                yield child.text or ""
            elif tag == f"{_W}tab":
                yield "\t"
            elif tag in (f"{_W}br", f"{_W}cr"):
                yield "\n"
            elif tag == f"{_W}noBreakHyphen":
                yield "-"
            elif tag == f"{_W}txbxContent":
                self._boxes.append(list(child))
            elif (name := tag.removeprefix(_W)) in _NOTES:
                yield self._reference(name, child.get(f"{_W}id") or "")
            else:
                yield from self._text(child)

    def _reference(self, name: str, identity: str) -> str:
        number = 1 + sum(1 for kind, _, _ in self._notes if kind == name)
        label = f"[{number}]" if name == "footnoteReference" else f"[e{number}]"
        self._notes.append((name, identity, label))
        return label

    def _table(self, table: Any) -> None:
        if table.find(f".//{_W}tbl") is not None:
            for cell in table.iterchildren(f"{_W}tr"):
                for inner in cell.iterchildren(f"{_W}tc"):
                    for element in inner:
                        self.element(element)
            return
        rows = [self._row(row) for row in table.iter(f"{_W}tr")]
        self.builder.add("table", "\n".join(table_row(row) for row in grid(_unmerged(rows)) if any(row)))

    def _row(self, row: Any) -> list[tuple[str, int, str | None]]:
        """Return the cells of a row as text, columns and the state of a merge over rows: None, `restart` or `continue`."""
        cells = []
        for cell in row.iter(f"{_W}tc"):
            properties = cell.find(f"{_W}tcPr")
            wide = properties.find(f"{_W}gridSpan") if properties is not None else None
            merge = properties.find(f"{_W}vMerge") if properties is not None else None
            text = "\n".join("".join(self._text(paragraph)) for paragraph in cell.iter(f"{_W}p"))
            state = None if merge is None else merge.get(f"{_W}val") or "continue"
            cells.append((text, int(wide.get(f"{_W}val", "1")) if wide is not None else 1, state))
        return cells

    def finish(self) -> None:
        """Add the notes that were referred to, and count headers and footers."""
        texts = {name: self._note_texts(part) for name, part in _NOTES.items()}
        for name, identity, label in self._notes:
            self.builder.add("list", f"{label} {tidy(texts[name].get(identity, ''))}")
        for section in self._word.sections:
            for part, name in ((section.header, "page_header"), (section.footer, "page_footer")):
                self.builder.counts[name] += not part.is_linked_to_previous and any(paragraph.text.strip() for paragraph in part.paragraphs)

    def _note_texts(self, kind: str) -> dict[str, str]:
        from docx.oxml import parse_xml

        for relation in self._word.part.rels.values():
            if relation.reltype.endswith(f"/{kind}"):
                root = parse_xml(relation.target_part.blob)
                return {note.get(f"{_W}id"): "".join(self._text(note)) for note in root}
        return {}


def _unmerged(rows: list[list[tuple[str, int, str | None]]]) -> list[list[tuple[str, int, int]]]:
    """Return the rows with the text of a cell merged over rows in each of them, as `grid` gives it for other formats."""
    above: dict[int, str] = {}
    found = []
    for row in rows:
        column, line = 0, []
        current: dict[int, str] = {}
        for text, wide, state in row:
            shown = above.get(column, "") if state == "continue" else text
            if state is not None:
                current[column] = shown
            line.append((shown, wide, 1))
            column += wide
        above = current
        found.append(line)
    return found
