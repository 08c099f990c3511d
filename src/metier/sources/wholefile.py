"""Text files that are one row, for a corpus's own function to take apart."""

from __future__ import annotations

from pathlib import Path

from metier.errors import Fault, SourceError
from metier.sources.encoding import open_text
from metier.sources.rows import LARGEST_WHOLE, Row, Rows

__all__ = ["read_file"]


def _text(path: Path, shown: str, encoding: str) -> str:
    with open_text(path, encoding) as stream:
        text = stream.read(LARGEST_WHOLE + 1)
    if len(text) > LARGEST_WHOLE:
        raise SourceError(Fault(f"a file of more than {LARGEST_WHOLE:,} characters", shown, remedy="split it"))
    return text


def read_file(path: Path, shown: str, encoding: str) -> Rows:
    """Yield a whole text file as one row: its `text` and its name as `file`."""
    text = _text(path, shown, encoding).replace("\r\n", "\n")
    yield Row({"text": text, "file": path.name}, 1, "", "file")
