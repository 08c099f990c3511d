"""Reading documents: the articles of a folder of Chinese Markdown files, and PDF files made of their text, beside pypdf.

    python benchmarks/documents.py --data FOLDER --work FOLDER

The last line is JSON: files, articles and characters a second through outline and chunks, how many articles are missing or out of order, characters that no
chunk holds, and for PDF pages a second of Metier (pdfplumber) and of pypdf, with the share of the text that each gives back exactly.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from metier.sources.documents import ChunkSettings, chunks, read_document

_NUMBER = "[〇零一二三四五六七八九十百千0-9]+"
_ARTICLE = re.compile(rf"^[ \u200b]*(第{_NUMBER}条(?:之{_NUMBER})?)(?=[\s\u3000])", re.MULTILINE)
_LINES, _WIDTH = 45, 40


def bare(text: str) -> str:
    """Return a text without white space."""
    return "".join(text.split())


def outlines(files: list[Path]) -> dict[str, Any]:
    """Return what reading, outlining and chunking the files gives and costs."""
    settings = ChunkSettings(by="article", characters=4000)
    began = time.process_time()
    read = [(document, chunks(document, settings)) for document in (read_document(path, path.name, "markdown") for path in files)]
    seconds = time.process_time() - began
    wrong = lost = found = 0
    for document, made in read:
        labels = [chunk.block.article for chunk in made if chunk.block.article and chunk.part == 1]
        found += len(labels)
        wrong += labels != _ARTICLE.findall(document.text)
        held = sum(len(bare(document.text[chunk.start : chunk.end])) for chunk in made)
        lost += len(bare(document.text)) - held - sum(len(bare(document.text[item.start : item.end])) for item in document.left_out)
    characters = sum(len(document.text) for document, _ in read)
    return {
        **{"files": len(files), "articles": found, "files_with_wrong_articles": wrong, "characters": characters, "characters_lost_or_doubled": lost},
        "characters_a_second": round(characters / seconds),
    }


def write_pdf(path: Path, text: str, pages: int) -> str:
    """Write pages of a text in Chinese type and return the text that stands in them."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen import canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    pdf, place = canvas.Canvas(str(path)), 0
    for _ in range(pages):
        pdf.setFont("STSong-Light", 11)
        for line in range(_LINES):
            pdf.drawString(72, 770 - line * 15.4, text[place : place + _WIDTH])
            place += _WIDTH
        pdf.showPage()
    pdf.save()
    return text[:place]


def pdfs(files: list[Path], work: Path, pages: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return pages a second and the exactness of the text, of Metier and of pypdf, in turns on the same file."""
    text = bare("".join(path.read_text(encoding="utf-8") for path in files))[: pages * _LINES * _WIDTH]
    path = work / "text.pdf"
    written = bare(write_pdf(path, text, pages))
    began = time.process_time()
    ours = read_document(path, path.name, "pdf").text
    seconds = time.process_time() - began
    result = {"pages": pages, "pages_a_second": round(pages / seconds, 1), "text_equal": bare(ours) == written}
    if find_spec("pypdf") is None:
        return result, {}
    from pypdf import PdfReader

    began = time.process_time()
    theirs = "".join(page.extract_text() for page in PdfReader(path).pages)
    seconds = time.process_time() - began
    return result, {"pages_a_second": round(pages / seconds, 1), "text_equal": bare(theirs) == written}


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of Chinese statutes in Markdown")
    parser.add_argument("--work", type=Path, required=True, help="folder for the PDF file")
    parser.add_argument("--pages", type=int, default=20)
    arguments = parser.parse_args()
    files = sorted(arguments.data.rglob("*.md"))
    arguments.work.mkdir(parents=True, exist_ok=True)
    documents = outlines(files)
    ours, pypdf = pdfs(files, arguments.work, arguments.pages)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    peers = {"pypdf": pypdf} if pypdf else {}
    ratios = {"pdf_pages_against_pypdf": round(ours["pages_a_second"] / pypdf["pages_a_second"], 3)} if pypdf else {}
    print(json.dumps({"benchmark": "documents", "machine": machine, "ours": {"outline": documents, "pdf": ours}, "peers": peers, "ratios": ratios}))


if __name__ == "__main__":
    main()
