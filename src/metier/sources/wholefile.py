"""Files that are one value: a JSON object whose parts are rows, and text that a corpus's own function takes apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from metier.errors import Fault, SourceError
from metier.sources.encoding import open_text
from metier.sources.rows import LARGEST_WHOLE, Malformed, Row, Rows

__all__ = ["read_element", "read_file"]


def _text(path: Path, shown: str, encoding: str) -> str:
    with open_text(path, encoding) as stream:
        text = stream.read(LARGEST_WHOLE + 1)
    if len(text) > LARGEST_WHOLE:
        raise SourceError(Fault(f"a file of more than {LARGEST_WHOLE:,} characters", shown, remedy="split it"))
    return text


def read_element(path: Path, shown: str, encoding: str, element: str) -> Rows:
    """Yield the objects below `element` of a JSON file: a key whose value is a list, or `*` for every value of the top level, its key as `@key`.

    Raises SourceError for a file that is no JSON or has no such part. Rows are numbered from 1.
    """
    try:
        value = json.loads(_text(path, shown, encoding), parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        what = error.msg if isinstance(error, json.JSONDecodeError) else "a number or nesting beyond what JSON readers take"
        raise SourceError(Fault(f"broken JSON: {what}", shown, line, remedy="mend the file; is it cut off?")) from None
    if element == "*" and isinstance(value, dict):
        items: list[tuple[str | None, Any]] = list(value.items())
    elif isinstance(value, dict) and isinstance(value.get(element), list):
        items = [(None, item) for item in value[element]]
    else:
        raise SourceError(Fault(f"the file has no part {element!r} that holds rows", shown, remedy="is it really a file of this corpus?"))
    for number, (key, item) in enumerate(items, 1):
        raw = json.dumps(item, ensure_ascii=False)
        if isinstance(item, dict):
            yield Row(item if key is None else {**item, "@key": key}, number, raw, f"row {number}")
        else:
            yield Malformed("not_an_object", number, raw, f"row {number}")


def read_file(path: Path, shown: str, encoding: str) -> Rows:
    """Yield a whole text file as one row: its `text` and its name as `file`."""
    text = _text(path, shown, encoding).replace("\r\n", "\n")
    yield Row({"text": text, "file": path.name}, 1, "", "file")
