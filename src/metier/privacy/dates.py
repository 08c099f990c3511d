"""Shifts written dates by a number of days and keeps the way they are written, Chinese and English."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache

import regex

from metier.privacy.surrogates import words

__all__ = ["shift"]

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_MONTH_WORD = "(?P<name>[A-Za-z]{3,9})"
_PLAIN = (
    r"(?P<y>[0-9]{4})(?P<s1>[-/. ])(?P<m>[0-9]{1,2})[-/. ](?P<d>[0-9]{1,2})",
    r"(?P<y>[0-9]{4})(?P<m>[0-9]{2})(?P<d>[0-9]{2})",
    r"(?P<m>[0-9]{1,2})[-/.](?P<d>[0-9]{1,2})[-/.](?P<y>[0-9]{4})",
    _MONTH_WORD + r"\.? +(?P<d>[0-9]{1,2})(?P<th>st|nd|rd|th)?,? +(?P<y>[0-9]{4})",
    r"(?P<d>[0-9]{1,2})(?P<th>st|nd|rd|th)? +" + _MONTH_WORD + r"\.?,? +(?P<y>[0-9]{4})",
    _MONTH_WORD + r"\.? +(?P<d>[0-9]{1,2})(?P<th>st|nd|rd|th)?",
    r"(?P<m>[0-9]{1,2})[-/](?P<d>[0-9]{1,2})",
)
_ANY_YEAR = 2001
"""A year without 29 February stands in for a year that is not written."""


@lru_cache(maxsize=1)
def _forms() -> tuple[regex.Pattern[str], ...]:
    mark = words()
    number = f"[0-9{mark['numerals']}{mark['ten']}{''.join(mark['numeral_variants'])}]"
    days = "|".join(mark["day"])
    full = f"(?P<y>{number}{{4}}) *{mark['year']} *(?P<m>{number}{{1,3}}) *{mark['month']}(?: *(?P<d>{number}{{1,3}}) *(?:{days})?)?"
    short = f"(?P<m>{number}{{1,3}}) *{mark['month']} *(?P<d>{number}{{1,3}}) *(?:{days})?"
    return tuple(regex.compile(form) for form in (full, *_PLAIN, short))


def shift(text: str, days: int) -> str | None:
    """Return the date `text` moved by `days` in the same writing, or None if it is no date in a known writing.

    A date without a day is taken as the first of its month; one without a year moves inside a year of 365 days.
    """
    for form in _forms():
        match = form.fullmatch(text)
        if match is None:
            continue
        found = match.groupdict()
        try:
            moved = _read(found) + timedelta(days=days)
        except (ValueError, OverflowError):
            continue
        return _write(text, match, moved, found)
    return None


def _read(found: Mapping[str, str | None]) -> date:
    name = found.get("name")
    month = _month(name) if name else _number(found["m"] or "")
    year, day = found.get("y"), found.get("d")
    return date(_number(year) if year else _ANY_YEAR, month, _number(day) if day else 1)


def _month(name: str) -> int:
    for index, month in enumerate(_MONTHS, start=1):
        if month.casefold().startswith(name.casefold()[:3]):
            return index
    raise ValueError(name)


def _number(text: str) -> int:
    mark = words()
    for variant, numeral in mark["numeral_variants"].items():
        text = text.replace(variant, numeral)
    if mark["ten"] in text:
        tens, _, ones = text.partition(mark["ten"])
        return (mark["numerals"].index(tens) if tens else 1) * 10 + (mark["numerals"].index(ones) if ones else 0)
    return int("".join(str(mark["numerals"].index(char)) if char in mark["numerals"] else char for char in text))


def _write(text: str, match: regex.Match[str], moved: date, found: Mapping[str, str | None]) -> str:
    values = {"y": moved.year, "m": moved.month, "d": moved.day}
    padded = any((found.get(key) or "").startswith("0") for key in ("m", "d")) or len(found.get("m") or "") == len(found.get("d") or "") == 2
    pieces = []
    for key, old in found.items():
        if old is None or key == "s1":
            continue
        if key == "name":
            new = _MONTHS[moved.month - 1]
            new = new if len(old) > 4 or (len(old) == 4 and old in _MONTHS) else new[:3]
            new = new.upper() if old.isupper() else new
        elif key == "th":
            new = {1: "st", 2: "nd", 3: "rd"}.get(moved.day % 10 if moved.day not in (11, 12, 13) else 0, "th")
        else:
            new = _same_digits(old, values[key], padded=padded and key != "y")
        pieces.append((*match.span(key), new))
    for start, end, new in sorted(pieces, reverse=True):
        text = text[:start] + new + text[end:]
    return text


def _same_digits(old: str, value: int, *, padded: bool) -> str:
    if old.isascii():
        return f"{value:02}" if padded else str(value)
    mark = words()
    if len(old) == 4:
        return "".join(mark["numerals"][int(digit)] for digit in str(value))
    tens, ones = divmod(value, 10)
    return (mark["numerals"][tens] if tens > 1 else "") + (mark["ten"] if tens else "") + (mark["numerals"][ones] if ones else "")
