"""Complete submissions of EDGAR, taken apart: header, documents, items."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from typing import Any

__all__ = ["filing"]

_HEADER = {
    "form": re.compile(r"^CONFORMED SUBMISSION TYPE:[ \t]*(.+?)[ \t]*$", re.MULTILINE),
    "company": re.compile(r"^[ \t]*COMPANY CONFORMED NAME:[ \t]*(.+?)[ \t]*$", re.MULTILINE),
    "cik": re.compile(r"^[ \t]*CENTRAL INDEX KEY:[ \t]*(\d+)", re.MULTILINE),
    "period": re.compile(r"^CONFORMED PERIOD OF REPORT:[ \t]*(\d{8})", re.MULTILINE),
    "filed": re.compile(r"^FILED AS OF DATE:[ \t]*(\d{8})", re.MULTILINE),
    "accession": re.compile(r"^ACCESSION NUMBER:[ \t]*(\S+)", re.MULTILINE),
}
_DOCUMENT = re.compile(r"<DOCUMENT>(.*?)</DOCUMENT>", re.DOTALL)
_FIELD = re.compile(r"^<(TYPE|FILENAME)>(.+?)\s*$", re.MULTILINE)
_TEXT = re.compile(r"<TEXT>(.*?)</TEXT>", re.DOTALL)
_NOT_TEXT = re.compile(r"GRAPHIC|ZIP|EXCEL|JSON|XML|PDF|EX-101.*", re.IGNORECASE)
_MARKUP = re.compile(r"<(?:html|body|div|p|table)\b", re.IGNORECASE)
_ITEM = re.compile(r"^[ \t]*item[ \t\u00a0]+(\d{1,2}(?:\.\d{2})?[A-C]?)\b[.:]?", re.IGNORECASE | re.MULTILINE)
_BREAKS = {"p", "div", "tr", "li", "br", "h1", "h2", "h3", "h4", "h5", "h6", "table", "hr"}
_PASSED_OVER = {"script", "style", "title", "ix:header"}


class _Page(HTMLParser):
    """The text of a page: blocks on lines of their own, cells of a row divided by bars."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._passed = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._passed += tag in _PASSED_OVER
        if tag in _BREAKS:
            self.parts.append("\n" if tag in ("tr", "br", "li") else "\n\n")

    def handle_endtag(self, tag: str) -> None:
        self._passed = max(0, self._passed - (tag in _PASSED_OVER))
        if tag in ("td", "th"):
            self.parts.append(" | ")
        elif tag in _BREAKS:
            self.parts.append("\n" if tag in ("tr", "li") else "\n\n")

    def handle_data(self, data: str) -> None:
        if not self._passed:
            self.parts.append(re.sub(r"\s+", " ", data))


def _plain(text: str) -> str:
    if _MARKUP.search(text):
        page = _Page()
        page.feed(text)
        page.close()
        text = "".join(page.parts)
    lines = [re.sub(r"[ \t]+", " ", re.sub(r"(?: ?\| ?)+$", "", line.strip())).strip() for line in text.replace("\u00a0", " ").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _items(text: str) -> Iterator[tuple[str, str]]:
    """Yield (item, text). An item's heading may stand in a table of contents too: the longest stretch is the item, the others go to the front."""
    places = [(found.start(), found[1].upper()) for found in _ITEM.finditer(text)]
    ends = [*(start for start, _ in places[1:]), *([len(text)] if places else [])]
    pieces = [(item, text[start:end].strip()) for (start, item), end in zip(places, ends, strict=True)]
    longest = {item: max(range(len(pieces)), key=lambda at: len(pieces[at][1]) if pieces[at][0] == item else -1) for item, _ in pieces}
    front = [text[: places[0][0]].strip() if places else text, *(piece for at, (item, piece) in enumerate(pieces) if longest[item] != at)]
    if any(front):
        yield ("front" if places else ""), "\n\n".join(filter(None, front))
    yield from (piece for at, piece in enumerate(pieces) if longest[piece[0]] == at)


def filing(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the items of every document of a complete submission, with form, company, CIK, period and dates of its header.

    Documents that hold no text (pictures, spreadsheets, XBRL) are passed over; a file that is no submission gives nothing.
    """
    text = row["text"]
    header = text[: text.find("<DOCUMENT>")]
    facts = {name: found[1] if (found := pattern.search(header)) else None for name, pattern in _HEADER.items()}
    if facts["accession"] is None:
        return
    for name in ("period", "filed"):
        value = facts[name]
        facts[name] = f"{value[:4]}-{value[4:6]}-{value[6:]}" if value else None
    for document in _DOCUMENT.findall(text):
        fields = dict(_FIELD.findall(document))
        body = _TEXT.search(document)
        if body is None or _NOT_TEXT.fullmatch(fields.get("TYPE", "")) or fields.get("FILENAME", "").endswith((".xml", ".xsd", ".zip", ".jpg", ".gif")):
            continue
        for item, piece in _items(_plain(body[1])):
            yield {**facts, "document": fields.get("TYPE"), "item": item or None, "text": piece}
