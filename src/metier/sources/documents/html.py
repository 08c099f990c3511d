"""HTML as a document: what a reader of the page sees, without scripts, hidden parts, navigation and forms."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from metier.errors import Fault, MissingExtra, SourceError
from metier.sources.documents.blocks import Builder, Document, Kind, table_row, tidy
from metier.sources.documents.grid import grid

__all__ = ["read_html"]

_DEEPEST = 200
_LEFT_OUT = {"script", "style", "template", "noscript", "iframe", "svg", "canvas", "object", "nav", "select", "button", "input", "textarea", "head"}
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "div", "dl", "dt", "fieldset", "figcaption", "figure"),
    *("footer", "form", "header", "hr", "legend", "li", "main", "ol", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead"),
    *("tr", "ul", "caption", "h1", "h2", "h3", "h4", "h5", "h6"),
}
_ITEMS = {"li", "dt", "dd"}


def read_html(text: str, shown: str) -> Document:
    """Return the document of an HTML page.

    A table that holds another table is layout: its cells are read one after the other. Raises SourceError for elements nested deeper than 200.
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise MissingExtra("selectolax", "documents", "reading HTML") from None
    page = LexborHTMLParser(text)
    walker = _Walker(shown)
    title = page.css_first("head > title")
    walker.builder.title = tidy(title.text()) or None if title is not None else None
    if page.body is not None:
        walker.walk(page.body, 0)
        walker.flush()
    return walker.builder.document()


def _children(node: Any) -> Iterator[Any]:
    child = node.child
    while child is not None:
        yield child
        child = child.next


def _hidden(node: Any) -> bool:
    attributes = node.attributes
    return "hidden" in attributes or attributes.get("aria-hidden") == "true" or bool(_HIDDEN.search(attributes.get("style") or ""))


class _Walker:
    """Collects inline text and hands it over as a block where a block element begins or ends."""

    def __init__(self, shown: str) -> None:
        self.builder = Builder()
        self._shown = shown
        self._inline: list[str] = []
        self._kind: Kind = "paragraph"
        self._level = 0
        self._mark = ""
        self._items: Counter[int] = Counter()

    def flush(self) -> None:
        """Close the block of the inline text so far."""
        text = "\n".join(filter(None, (tidy(line) for line in "".join(self._inline).split("\0"))))
        self._inline.clear()
        if text:
            self.builder.add(self._kind, f"{self._mark}{text}", level=self._level)
            self._mark = ""

    def walk(self, node: Any, depth: int) -> None:
        """Read what is inside an element."""
        if depth > _DEEPEST:
            raise SourceError(Fault(f"elements are nested more than {_DEEPEST} deep", self._shown, remedy="is this really a page that people read?"))
        for child in _children(node):
            tag = child.tag
            if tag == "-text":
                # Line ends in the source are blanks; those of <br> and <pre> are kept under the NUL that HTML cannot hold.
                self._inline.append(child.text_content or "")
            elif tag == "br":
                self._inline.append("\0")
            elif not tag or tag.startswith("-"):
                continue
            elif tag in _LEFT_OUT or _hidden(child):
                self.builder.counts["hidden" if tag not in _LEFT_OUT else tag] += 1
            elif tag in _BLOCKS:
                self._block(child, tag, depth)
            else:
                self.walk(child, depth + 1)

    def _block(self, node: Any, tag: str, depth: int) -> None:
        self.flush()
        if tag == "table" and not _has_table(node):
            self.builder.add("table", "\n".join(table_row(row) for row in self._rows(node)))
            return
        if tag == "pre":
            self.builder.add("paragraph", node.text())
            return
        before = self._kind, self._level, self._mark
        if tag in _ITEMS:
            self._kind, self._mark = "list", self._marker(node, tag)
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            self._kind, self._level = "heading", int(tag[1])
        self.walk(node, depth + 1)
        self.flush()
        self._kind, self._level, self._mark = before

    def _marker(self, node: Any, tag: str) -> str:
        if tag != "li":
            return "  " if tag == "dd" else ""
        if node.parent is None or node.parent.tag != "ol":
            return "- "
        self._items[node.parent.mem_id] += 1
        return f"{self._items[node.parent.mem_id]}. "

    def _rows(self, table: Any) -> list[list[str]]:
        for caption in table.css("caption"):
            self.builder.add("paragraph", tidy(caption.text()))
        rows = ([cell for cell in _children(row) if cell.tag in ("td", "th")] for row in table.css("tr") if not _hidden(row))
        return grid([[(self._cell(cell), _span(cell, "colspan"), _span(cell, "rowspan")) for cell in row] for row in rows if row])

    def _cell(self, cell: Any) -> str:
        inner = _Walker(self._shown)
        if not _hidden(cell):
            inner.walk(cell, 0)
            inner.flush()
        self.builder.counts += inner.builder.counts
        return inner.builder.document().text


def _has_table(node: Any) -> bool:
    return any(inner.mem_id != node.mem_id for inner in node.css("table"))


def _span(cell: Any, name: str) -> int:
    value = cell.attributes.get(name) or ""
    return max(1, min(int(value), 1000)) if value.isdecimal() else 1
