"""PDF as a document: its text layer in reading order, with pages, headings by type size, ruled tables, and without running heads."""

from __future__ import annotations

import logging
import mmap
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from metier.errors import Fault, MissingExtra, SourceError
from metier.sources.documents.blocks import Builder, Document, table_row
from metier.sources.documents.layout import Line, Typography, columns, join, lines, paragraphs
from metier.sources.documents.limits import DAMAGE, check_streams

__all__ = ["read_pdf"]

_DIGITS = re.compile(r"\d+")
_UNKNOWN = re.compile(r"\(cid:\d+\)")
_MARGIN = 0.085
_UNDECODED = 0.1
_BROKEN = "open it in a PDF reader and print it to a new PDF; is it cut off?"


def read_pdf(path: Path, shown: str) -> Document:
    """Return the document of a PDF's text layer.

    Lines at the head or foot of pages that come again on most of them are left out and counted. Pages with pictures and no text, and those of which a
    tenth of the characters have no meaning in the file (a font without a table of Unicode), are in `unread`; elsewhere such a character is U+FFFD.
    Raises SourceError for a file that is encrypted, damaged, unpacks to too much or has no text on any page.
    """
    try:
        import pdfplumber
        from pdfminer.pdfdocument import PDFPasswordIncorrect
        from pdfminer.psexceptions import PSException
        from pdfplumber.utils.exceptions import MalformedPDFException, PdfminerException
    except ImportError:
        raise MissingExtra("pdfplumber", "documents", "reading PDF") from None
    logging.getLogger("pdfminer").setLevel(logging.ERROR)
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            check_streams(data, shown)
        with pdfplumber.open(path) as pdf:
            pages = [_Page(number, page) for number, page in enumerate(pdf.pages, 1)]
    except (PdfminerException, MalformedPDFException, PSException, PDFPasswordIncorrect, *DAMAGE) as error:
        if isinstance(error, PDFPasswordIncorrect) or "PDFPasswordIncorrect" in repr(error):
            raise SourceError(Fault("the PDF is encrypted with a password", shown, remedy="save it without the password")) from None
        raise SourceError(Fault(f"not a readable PDF ({type(error).__name__})", shown, remedy=_BROKEN)) from None
    if not any(page.lines or page.tables for page in pages):
        undecodable = any(page.unread == "page_of_undecodable_text" for page in pages)
        what = f"no {'readable ' if undecodable else ''}text on any of {len(pages)} pages: a scan, empty, or in fonts without Unicode"
        raise SourceError(Fault(what, shown, remedy="run optical character recognition on it first (for instance ocrmypdf), which adds a text layer"))
    return _assemble(pages)


class _Page:
    """What is kept of a page: lines of text outside its tables, the tables, and why it could not be read, if so."""

    def __init__(self, number: int, page: Any) -> None:
        self.number = number
        self.height = float(page.height)
        unknown = sum(1 for char in page.chars if _UNKNOWN.fullmatch(char["text"]))
        self.undecoded = unknown
        self.unread = ""
        turned = sum(1 for char in page.chars if not char["upright"])
        self.turned = int(turned > 0)
        upright = page.filter(lambda item: item.get("upright", True)) if turned else page
        found = [table for table in upright.find_tables() if _is_table(table)] if len(page.edges) >= 6 else []
        self.tables = [(float(table.bbox[1]), [[cell or "" for cell in row] for row in table.extract()]) for table in found]
        words = upright.extract_words(extra_attrs=["size", "fontname"], x_tolerance_ratio=0.2, keep_blank_chars=True)
        words = [{**word, "text": _UNKNOWN.sub("\ufffd", word["text"])} for word in words if word["text"].strip()]
        outside = [word for word in words if not any(_inside(word, table.bbox) for table in found)]
        self.lines = columns(lines(outside), float(page.width))
        if unknown > _UNDECODED * len(page.chars):
            self.lines, self.tables, self.unread = [], [], "page_of_undecodable_text"
        elif not self.lines and not self.tables and page.images:
            self.unread = "page_without_text"
        page.close()


def _is_table(table: Any) -> bool:
    return len(table.rows) >= 2 and max(len(row.cells) for row in table.rows) >= 2


def _inside(word: dict[str, Any], box: Sequence[float]) -> bool:
    middle, height = (word["x0"] + word["x1"]) / 2, (word["top"] + word["bottom"]) / 2
    return bool(box[0] <= middle <= box[2] and box[1] <= height <= box[3])


def _running(pages: Sequence[_Page], *, reach: int = 2, share: float = 0.6, least: int = 3) -> set[tuple[str, str]]:
    """Return the (place, text without numbers) of lines among the `reach` first or last of a page that stand on `share` of at least `least` pages."""
    seen: Counter[tuple[str, str]] = Counter()
    filled = [page for page in pages if page.lines]
    for page in filled:
        seen.update(set(_edge_lines(page, reach)))
    return {key for key, count in seen.items() if count >= max(least, share * len(filled))}


def _edge_lines(page: _Page, reach: int) -> Iterator[tuple[str, str]]:
    ordered = sorted(page.lines, key=lambda line: line.top)
    for place, some in (("head", ordered[:reach]), ("foot", ordered[-reach:])):
        for line in some:
            if line.top < page.height * _MARGIN if place == "head" else line.bottom > page.height * (1 - _MARGIN):
                yield place, _DIGITS.sub("#", line.text)


def _assemble(pages: Sequence[_Page]) -> Document:
    builder = Builder()
    running = _running(pages)
    type_ = Typography([line for page in pages for line in page.lines])
    text = _Text(builder, type_)
    for page in pages:
        if page.unread:
            builder.unread.append((page.number, page.unread))
        else:
            builder.counts["undecodable_character"] += page.undecoded
        builder.counts["turned_text"] += page.turned
        kept = [line for line in page.lines if not _runs(line, page, running)]
        builder.counts["page_header_or_footer"] += len(page.lines) - len(kept)
        for item in _ordered(page, kept, type_):
            if isinstance(item, list):
                text.flush()
                builder.add("table", "\n".join(table_row(row) for row in item if any(row)), page=page.number)
            else:
                text.take(item, page.number)
    text.flush()
    return builder.document()


class _Text:
    """Holds back a paragraph that may go on at the head of the next column or page."""

    def __init__(self, builder: Builder, type_: Typography) -> None:
        self._builder = builder
        self._type = type_
        self._lines: list[Line] = []
        self._page = 0
        self._last = 0

    def take(self, paragraph: Sequence[Line], page: int) -> None:
        """Add a paragraph or a heading."""
        if level := self._type.level(paragraph):
            self.flush()
            title = join(paragraph)
            self._builder.add("heading", title, level=level, page=page)
            self._builder.title = self._builder.title or (title if level == 1 else None)
            return
        turned = bool(self._lines) and (page != self._last or paragraph[0].top < self._lines[-1].top)
        if not (turned and self._type.continues(join(self._lines), paragraph[0])):
            self.flush()
            self._page = page
        self._lines += paragraph
        self._last = page

    def flush(self) -> None:
        """End the paragraph that is held back."""
        text = join(self._lines)
        self._builder.add("list" if Typography.is_item(text) else "paragraph", text, page=self._page)
        self._lines = []


def _runs(line: Line, page: _Page, running: set[tuple[str, str]]) -> bool:
    place = "head" if line.top < page.height * _MARGIN else "foot" if line.bottom > page.height * (1 - _MARGIN) else ""
    return (place, _DIGITS.sub("#", line.text)) in running


def _ordered(page: _Page, kept: Sequence[Line], type_: Typography) -> Iterator[tuple[Line, ...] | list[list[str]]]:
    """Yield paragraphs and tables of a page; a table comes before the first line below it."""
    waiting = sorted(page.tables)
    for paragraph in paragraphs(kept, type_):
        while waiting and waiting[0][0] < paragraph[0].top:
            yield waiting.pop(0)[1]
        yield paragraph
    for _, table in waiting:
        yield table
