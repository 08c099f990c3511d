"""Reads the structured answers of the medical tasks; None says that an answer does not have its format."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import regex

from metier.config import load_yaml
from metier.packs.matching import fold_width

__all__ = ["consultation", "icd_code"]

_CODE = regex.compile(r"(?<![0-9A-Za-z.])[A-Za-z][0-9][0-9A-Za-z](?:\.?[0-9A-Za-z]{1,4})?(?![0-9A-Za-z]|\.[0-9])")
_DECODER = json.JSONDecoder()


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    """Return every name of a field, in either language -> the field."""
    fields = load_yaml(Path(__file__).parent / "data" / "answers.yaml").value
    return {name: field for field, names in fields.items() for name in names}


def consultation(text: str) -> dict[str, str] | None:
    """Return department, advice and urgency of the first JSON object in an answer, or None if one of them is missing, empty or no text.

    Chinese and English names of the fields are taken; other fields are left out.
    """
    start = text.find("{")
    if start < 0:
        return None
    try:
        value, _ = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    names = _names()
    found = {names[key]: item.strip() for key, item in value.items() if key in names and isinstance(item, str) and item.strip()}
    return {field: found[field] for field in ("department", "advice", "urgency")} if len(found) == 3 else None


def icd_code(text: str) -> str | None:
    """Return the first ICD-10 code in an answer, upper case with its dot, or None.

    A code is a letter, a digit, a digit or letter, and up to four more characters after a dot (ICD-10-CM, chapter structure). The dot may
    be missing. A word of that shape without a digit in its tail, such as a unit, is none: the second character is always a digit.
    """
    match = _CODE.search(fold_width(text))
    if match is None:
        return None
    code = match.group().upper().replace(".", "")
    return f"{code[:3]}.{code[3:]}" if len(code) > 3 else code
