"""Documents as rows: each chunk of a document with what is known of its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

from metier.digest import digest_of
from metier.errors import Fault, SourceError
from metier.sources.documents.blocks import Document
from metier.sources.documents.chunks import Chunk, ChunkSettings, chunks
from metier.sources.documents.docx import read_docx
from metier.sources.documents.html import read_html
from metier.sources.documents.markdown import read_markdown
from metier.sources.documents.outline import outline
from metier.sources.documents.pdf import read_pdf
from metier.sources.documents.text import read_text
from metier.sources.documents.xml import read_xml_prose
from metier.sources.encoding import open_text
from metier.sources.rows import LARGEST_WHOLE, Malformed, Row, Rows

__all__ = ["DOCUMENT_FIELDS", "DocumentKind", "divided", "document_rows", "read_document"]

DocumentKind: TypeAlias = Literal["text", "markdown", "html", "pdf", "docx", "xml-prose"]

DOCUMENT_FIELDS = ("text", "title", "section", "article", "page", "part", "parts", "row", "document", "file", "chunk")
"""Columns of the rows that documents give: see `document_rows`."""


def read_document(path: Path, shown: str, kind: DocumentKind, encoding: str = "utf-8") -> Document:
    """Return a file as a document with its outline. `encoding` is that of text files; `shown` names the file in messages.

    Line ends become \\n. Raises SourceError for a file that is not what its kind says, MissingExtra where the kind needs a package.
    """
    if kind == "pdf":
        return outline(read_pdf(path, shown), plain=False)
    if kind == "docx":
        return outline(read_docx(path, shown), plain=False)
    with open_text(path, encoding) as stream:
        text = stream.read(LARGEST_WHOLE + 1)
    if len(text) > LARGEST_WHOLE:
        raise SourceError(Fault(f"a document of more than {LARGEST_WHOLE:,} characters", shown, remedy="split it, or write one record a line (.jsonl)"))
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(Fault("a NUL character: this is no text file", shown, line, remedy="check the file; for UTF-16 write encoding: utf-16"))
    if kind == "html":
        return outline(read_html(text, shown), plain=False)
    if kind == "xml-prose":
        return outline(read_xml_prose(text, shown), plain=False)
    return outline(read_markdown(text), plain=False) if kind == "markdown" else outline(read_text(text), plain=True)


def document_rows(document: Document, settings: ChunkSettings, *, uri: str, digest: str) -> Rows:
    """Yield each chunk as a row, and what could not be read or is left out by the settings as malformed stretches.

    Columns: `text`; `title` of the document; `section`, the headings above, outermost first; `article`, its label; `page`, the first; `part` of `parts` of a
    divided article or section; `row`, the cells of a table's row by name; `document`, an identifier that all chunks of a file share; `file`, its name;
    `chunk`, the number in the document, so that neighbours can be found. What is not there is null.
    """
    identity = digest_of(["document", uri, digest])[:32]
    if not document.blocks and not document.unread:
        yield Malformed("empty_document", 1, "", "document")
    # A page that is only a picture is usual; where most pages are, the file is a scan with a page or two of text, and that is a fault.
    scan = len(document.unread) > len({block.page for block in document.blocks})
    for page, reason in document.unread:
        yield Malformed(f"{reason}:page {page}", page, "", f"page {page}", counts=scan)
    for number, chunk in enumerate(chunks(document, settings), 1):
        position = _position(chunk)
        text = document.text[chunk.start : chunk.end]
        if chunk.dropped:
            yield Malformed(chunk.dropped, number, text, position, counts=False)
        else:
            yield Row(_values(document, chunk, text) | {"document": identity, "file": Path(uri).name, "chunk": number}, number, text, position)


def divided(row: Row, settings: ChunkSettings, place: str) -> Rows:
    """Yield a row whose `text` is long as rows of chunks, with `section`, `part` and `parts`; the other values stand in each. Text that fits stays whole."""
    text = row.values.get("text")
    if not isinstance(text, str) or (len(text) <= settings.characters and settings.by == "auto"):
        undivided: dict[str, Any] = {"section": [], "article": None, "part": None, "parts": None}
        yield Row({**row.values, **undivided}, row.place, row.raw, place)
        return
    found = [chunk for chunk in chunks(outline(read_text(text), plain=True), settings) if not chunk.dropped]
    for number, chunk in enumerate(found, 1):
        values = {**row.values, "text": text[chunk.start : chunk.end], "section": list(chunk.block.section), "article": chunk.block.article}
        yield Row({**values, "part": number, "parts": len(found)}, row.place, "", f"{place}, characters {chunk.start}-{chunk.end}")


def _values(document: Document, chunk: Chunk, text: str) -> dict[str, Any]:
    block = chunk.block
    divided = chunk.parts > 1
    return {
        "text": text,
        "title": document.title,
        "section": list(block.section),
        "article": block.article,
        "page": block.page,
        "part": chunk.part if divided else None,
        "parts": chunk.parts if divided else None,
        "row": dict(chunk.row) or None,
    }


def _position(chunk: Chunk) -> str:
    """Return the place of a chunk in words that hold nothing of its text: pages, number of the section, article, characters."""
    return ", ".join(_places(chunk))


def _places(chunk: Chunk) -> Iterator[str]:
    block = chunk.block
    if block.page is not None:
        yield f"pages {block.page}-{chunk.last_page}" if chunk.last_page not in (None, block.page) else f"page {block.page}"
    if block.number:
        yield f"section {'.'.join(map(str, block.number))}"
    if block.article:
        yield f"article {block.article}"
    yield f"characters {chunk.start}-{chunk.end}"
