"""Makes a value say less: an age its class, a ZIP code three digits, a date its year, an address its province or city, a number its range."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import regex

from metier.packs.matching import compile_pattern, fold_width
from metier.privacy import dates
from metier.privacy.policy import Treatment
from metier.privacy.surrogates import words

__all__ = ["RESTRICTED_ZIP3", "generalise"]

RESTRICTED_ZIP3 = frozenset(["036", "059", "063", "102", "203", "556", "692", "790", "821", "823", "830", "831", "878", "879", "884", "890", "893"])
"""Three-digit ZIP areas of 20,000 people or fewer, which become 000 (45 CFR 164.514(b)(2)(i)(B)(2); HHS guidance of 2012, Census 2000)."""

_HAN = regex.compile(r"\p{Han}")
_NUMBER = regex.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
_OLDEST = 150


def generalise(treatment: Treatment, value: str) -> str | None:
    """Return what `treatment` leaves of `value`, or None where the value is not in a known writing: the caller masks it then."""
    return None if treatment.to is None else _SCALES[treatment.to](treatment, fold_width(value))


def _year(treatment: Treatment, value: str) -> str | None:
    kept = dates.year(value)
    if kept is None or treatment.earliest is None:
        return kept
    written = dates.number(kept.removesuffix(words()["year"]))
    return kept if written is not None and written >= treatment.earliest else None


def _age(treatment: Treatment, value: str) -> str | None:
    match = regex.search(_age_pattern(), value)
    age = None if match is None else dates.number(match.group())
    if match is None or age is None or age > _OLDEST:
        return None
    if treatment.above is not None and age > treatment.above:
        left = f"{treatment.above + 1}+"
    elif treatment.below is not None and age < treatment.below:
        left = f"0-{treatment.below - 1}"
    elif treatment.width is not None:
        first = age - age % treatment.width
        left = f"{first}-{first + treatment.width - 1}"
    else:
        return value
    return value[: match.start()] + left + value[match.end() :]


@lru_cache(maxsize=1)
def _age_pattern() -> str:
    mark = words()
    return f"[0-9{mark['numerals']}{mark['ten']}{''.join(mark['numeral_variants'])}]+"


def _zip3(treatment: Treatment, value: str) -> str | None:
    digits = "".join(char for char in value if char.isdigit())
    if len(digits) not in (5, 9):
        return None
    return "000" if digits[:3] in RESTRICTED_ZIP3 else digits[:3]


def _province(treatment: Treatment, value: str) -> str | None:
    if not _HAN.search(value):
        return _state(value)
    match = _han_place().match(value)
    return None if match is None else str(match["province"])


def _city(treatment: Treatment, value: str) -> str | None:
    if not _HAN.search(value):
        return _state(value)
    match = _han_place().match(value)
    return None if match is None else str(match["province"]) + (match["city"] or "")


@lru_cache(maxsize=1)
def _han_place() -> regex.Pattern[str]:
    """A province, and the city behind it. A municipality is both: nothing of what stands behind it is kept."""
    mark = words()
    municipality = f"(?:{'|'.join(mark['municipalities'])})(?:{mark['address']['city']})?"
    ends = "|".join(mark["province_ends"])
    cities = "|".join(mark["city_ends"])
    city = rf"(?P<city>\p{{Han}}{{1,6}}?(?:{cities}))?"
    return compile_pattern(rf"(?|(?P<province>{municipality})(?P<city>)|(?P<province>\L<zh_province>(?:{ends})?){city})")


def _state(value: str) -> str | None:
    """Return the state of a US address: its code before the ZIP code or at the end, or its name."""
    codes = words()["us_state_codes"].split()
    for match in reversed(list(regex.finditer(r"(?<![0-9A-Za-z])(?P<code>[A-Z]{2})(?=[ ,]*(?:[0-9]{5}(?:-[0-9]{4})?)?[ .]*$)", value))):
        if match["code"] in codes:
            return str(match["code"])
    return next((state for state in sorted(words()["us_states"], key=len, reverse=True) if regex.search(rf"(?<![A-Za-z]){state}(?![A-Za-z])", value)), None)


def _range(treatment: Treatment, value: str) -> str | None:
    match = _NUMBER.search(value)
    if match is None or treatment.width is None:
        return None
    number = float(match.group().replace(",", ""))
    first = int(number // treatment.width) * treatment.width
    return value[: match.start()] + f"{first}-{first + treatment.width}" + value[match.end() :]


_SCALES: Mapping[str, Callable[[Treatment, str], str | None]] = {
    "age": _age,
    "city": _city,
    "province": _province,
    "range": _range,
    "year": _year,
    "zip3": _zip3,
}
