"""Reads written dates, Chinese and English: moves them by days in the same writing, or leaves their year."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from functools import lru_cache

import regex

from metier.privacy.surrogates import words

__all__ = ["number", "shift", "year"]

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December")
_MONTH_WORD = "(?P<name>[A-Za-z]{3,9})"
_DAY = "(?P<d>[0-9]{1,2})(?P<th>st|nd|rd|th)?"
_TIME = r"(?:(?:[ T]|,? +(?:at +)?)[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?[AaPp]\.?[Mm]\.?)?(?:Z| ?[+-][0-9]{2}:?[0-9]{2})?)?"
_PLAIN = (
    r"(?P<y>[0-9]{4})(?P<s1>[-/. ])(?P<m>[0-9]{1,2})[-/. ](?P<d>[0-9]{1,2})",
    r"(?P<y>[0-9]{4})(?P<m>[0-9]{2})(?P<d>[0-9]{2})",
    r"(?P<m>[0-9]{1,2})[-/.](?P<d>[0-9]{1,2})[-/.](?P<y>[0-9]{4})",
    r"(?P<d>[0-9]{1,2})[-/.](?P<m>[0-9]{1,2})[-/.](?P<y>[0-9]{4})",
    rf"{_MONTH_WORD}\.? +{_DAY},? +(?P<y>[0-9]{{4}})",
    rf"{_DAY}[ -]+(?:of +)?{_MONTH_WORD}\.?,?[ -]+(?P<y>[0-9]{{4}})",
    rf"{_MONTH_WORD}\.? +{_DAY}",
    rf"{_DAY}[ -]+(?:of +)?{_MONTH_WORD}",
    rf"{_MONTH_WORD}\.?,? +(?P<y>[0-9]{{4}})",
    r"(?P<y>[0-9]{4})[-/.](?P<m>[0-9]{1,2})",
    r"(?P<m>[0-9]{1,2})/(?P<y>[0-9]{4})",
    r"(?P<m>[0-9]{1,2})[-/.](?P<d>[0-9]{1,2})[-/.](?P<short>[0-9]{2})",
    r"(?P<m>[0-9]{1,2})[-/](?P<d>[0-9]{1,2})",
)
"""From the surest writing to the least sure: what can be month/day is read so, day/month only where the month would not exist."""
_ANY_YEAR = 2001
"""A year without 29 February stands in for a year that is not written."""
_PIVOT = 69
"""Years of two digits from here on are 19xx, smaller ones 20xx (POSIX, strptime, %y)."""
_KEYS = ("y", "short", "m", "d", "name", "th")


@lru_cache(maxsize=1)
def _forms() -> tuple[regex.Pattern[str], ...]:
    mark = words()
    figure = f"[0-9{mark['numerals']}{mark['ten']}{''.join(mark['numeral_variants'])}]"
    days = "|".join(mark["day"])
    time = mark["time"].replace("NUMBER", figure)
    day = f"(?P<d>{figure}{{1,3}}) *(?:{days})?(?:{time})?"
    full = f"(?P<y>{figure}{{4}}) *{mark['year']} *(?P<m>{figure}{{1,3}}) *{mark['month']}(?: *{day})?"
    brief = f"(?P<short>[0-9]{{2}}) *{mark['year']} *(?P<m>{figure}{{1,3}}) *{mark['month']}(?: *{day})?"
    bare = f"(?P<m>{figure}{{1,3}}) *{mark['month']} *{day}"
    return tuple(regex.compile(form) for form in (full, brief, *(plain + _TIME for plain in _PLAIN), bare))


def shift(text: str, days: int) -> str | None:
    """Return the date `text` moved by `days` in the same writing, or None if it is no date in a known writing.

    A time of day stays as it is. A date without a day is taken as the first of its month; one without a year moves inside a
    year of 365 days.
    """
    for match, found in _readings(text):
        try:
            moved = found + timedelta(days=days)
        except OverflowError:
            continue
        return _write(text, match, moved)
    return None


def year(text: str) -> str | None:
    """Return what stays of a date if only its year may: the year as it is written; None where none of four digits is written."""
    mark = words()["year"]
    bare = text.removesuffix(mark)
    if len(bare) == 4 and number(bare) is not None:
        return text
    for match, _ in _readings(text):
        written = match.groupdict().get("y")
        return None if written is None else f"{written}{mark}" if mark in text else str(written)
    return None


def number(text: str) -> int | None:
    """Return the whole number that `text` writes in Arabic or Chinese numerals (those up to 99, or digit by digit), None for another text."""
    try:
        return _number(text.strip())
    except ValueError:
        return None


def _readings(text: str) -> Iterator[tuple[regex.Match[str], date]]:
    """Yield each way to read `text` as a date that exists, the surest first."""
    for form in _forms():
        match = form.fullmatch(text)
        if match is not None:
            with contextlib.suppress(ValueError, OverflowError):
                yield match, _read(match.groupdict())


def _read(found: Mapping[str, str | None]) -> date:
    name = found.get("name")
    month = _month(name) if name else _number(found["m"] or "")
    written, short, day = found.get("y"), found.get("short"), found.get("d")
    if short:
        return date(_century(_number(short)), month, _number(day) if day else 1)
    return date(_number(written) if written else _ANY_YEAR, month, _number(day) if day else 1)


def _century(short: int) -> int:
    return short + (1900 if short >= _PIVOT else 2000)


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


def _write(text: str, match: regex.Match[str], moved: date) -> str:
    found = match.groupdict()
    values = {"y": moved.year, "short": moved.year % 100, "m": moved.month, "d": moved.day}
    padded = any((found.get(key) or "").startswith("0") for key in ("m", "d")) or len(found.get("m") or "") == len(found.get("d") or "") == 2
    pieces = []
    for key in _KEYS:
        old = found.get(key)
        if old is None:
            continue
        if key == "name":
            new = _MONTHS[moved.month - 1]
            new = new if len(old) > 4 or (len(old) == 4 and old in _MONTHS) else new[:3]
            new = new.upper() if old.isupper() else new
        elif key == "th":
            new = {1: "st", 2: "nd", 3: "rd"}.get(moved.day % 10 if moved.day not in (11, 12, 13) else 0, "th")
        else:
            new = _same_digits(old, values[key], padded=key == "short" or (padded and key != "y"))
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
