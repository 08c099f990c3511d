"""Searches the output again: once with the rules that replaced, once with rules of another make that know nothing of packs.

The second search is simple and takes too much rather than too little: an @ between words, a telephone, a card, a resident number,
a social security or National Insurance number by its form and check digit alone, a number of six digits after a word such as *account*, and every
original value with blanks, case and width taken away. What Metier wrote itself is cut out first.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import regex

from metier.config import load_yaml
from metier.errors import PrivacyError
from metier.privacy.detect import Detector, occurrences, spreads
from metier.records import Span

__all__ = ["Finding", "Place", "findings", "second_sweep", "sweep"]

_SHORTEST_SWEPT = 5
_PERSON = "PERSON"
_LABELLED_DIGITS = 6
_HAN = regex.compile(r"\p{Han}")
_CUT = "\n"
_GENERALISE = "generalise"

_MAIL = regex.compile(r"[^\s@<>()\[\],;:]{1,64}@(?!example\.)[a-z0-9.-]{1,200}\.[a-z]{2,24}", regex.IGNORECASE)
_MOBILE = regex.compile(r"(?<![0-9])(?:86[ -]?)?1[3-9][0-9]([ -]?)[0-9]{4}\1[0-9]{4}(?![0-9])")
_SOCIAL = regex.compile(r"(?<![0-9-])(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![0-9-])")
_INSURANCE = regex.compile(r"(?<![0-9A-Za-z])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D](?![0-9A-Za-z])")
_LONG = regex.compile(
    r"(?<![0-9])(?:[1-9][0-9]{5}[ \n-]?(?:19|20)[0-9]{6}[ \n-]?[0-9]{3}[0-9X]"
    r"|[3-6][0-9]{12,18}|[3-6][0-9]{3}(?:[ -][0-9]{4}){2,3}(?:[ -][0-9]{1,3})?)(?![0-9])"
)
_DIGEST = regex.compile(r"(?<![0-9A-Za-z])(?=[0-9]{0,16}+[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32})(?![0-9A-Za-z])")
"""MD5, SHA-1 and SHA-256 as files and records carry them: small letters, one of them among the first 17 signs (a number has none)."""
_DATE = regex.compile(r"(?:1[89]|20)[0-9]{2}-(?:0?[1-9]|1[0-2])-(?:0?[1-9]|[12][0-9]|3[01])")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
"""GB 11643-1999, annex: weights of the first 17 digits; their sum modulo 11 picks the check character."""


class Place(Protocol):
    """Where something was written in the new text."""

    @property
    def new_start(self) -> int:
        """First code point."""
        ...

    @property
    def new_end(self) -> int:
        """Behind the last one."""
        ...

    @property
    def action(self) -> str:
        """What wrote it."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """What the second search took for an identifier; the value itself is not in it."""

    rule: str
    entity: str


def sweep(
    outputs: Sequence[str],
    places: Sequence[Sequence[Place]],
    spans: Sequence[Sequence[Span]],
    rules: Detector,
    *,
    unchanged: Collection[tuple[str, str]] = (),
) -> None:
    """Search the output with the rules that replaced. Raises PrivacyError for a thing outside every replacement that is an identifier or original.

    What the policy lets stand as it was (`unchanged`, by entity and value) is no leak. A moved date may be another one's original,
    so the values of such dates are not searched for.
    """
    written = [(span, place) for found, taken in zip(spans, places, strict=True) for span, place in zip(found, taken, strict=True)]
    originals = {(span.type, span.text) for span, place in written if place.action != "shift"}
    for output, taken in zip(outputs, places, strict=True):
        if not output:
            continue
        inside = [(place.new_start, place.new_end) for place in taken]
        for entity, value in originals:
            swept = spreads(value) if entity == _PERSON else len(value) >= _SHORTEST_SWEPT
            if swept and any(not _within(place, inside) for place in occurrences(value, output, exact=True)):
                raise PrivacyError(f"an original value of {entity} is still in the record after replacement")
        # The rules alone: a tagger reads surrogates as it read originals, and may take other words for a name in the new text.
        apart, inside = _apart(output, taken)
        for span in rules.scanner.spans(apart):
            if (span.type, span.text) not in unchanged and not any(start < span.end and span.start < end for start, end in inside):
                raise PrivacyError(f"{span.type} is found in the record after replacement")


def _apart(output: str, taken: Sequence[Place]) -> tuple[str, list[tuple[int, int]]]:
    """Return the output with a line end on both sides of what was generalised, and where the values were written in it.

    What stands beside such a value now never stood beside it: an office before a street of which the state alone is left (`Research MD`) is no name with
    a degree.
    """
    parts: list[str] = []
    inside: list[tuple[int, int]] = []
    end = shift = 0
    for place in taken:
        value = output[place.new_start : place.new_end]
        value = f"{_CUT}{value}{_CUT}" if place.action == _GENERALISE else value
        parts += [output[end : place.new_start], value]
        inside.append((place.new_start + shift, place.new_start + shift + len(value)))
        shift, end = shift + len(value) - (place.new_end - place.new_start), place.new_end
    return "".join([*parts, output[end:]]), inside


def _within(place: tuple[int, int], taken: Sequence[tuple[int, int]]) -> bool:
    return any(start <= place[0] and place[1] <= end for start, end in taken)


def second_sweep(
    outputs: Sequence[str],
    places: Sequence[Sequence[Place]],
    spans: Sequence[Sequence[Span]],
    *,
    kept: Callable[[str], bool] = lambda entity: False,
) -> None:
    """Search the output by independent rules. Raises PrivacyError for the first finding; kinds that the policy keeps are passed over."""
    originals = [(span.type, span.text) for found in spans for span in found]
    for output, taken in zip(outputs, places, strict=True):
        for finding in findings(_without(output, taken), originals):
            if not kept(finding.entity):
                raise PrivacyError(f"the second search finds {finding.entity} in the record after replacement (rule {finding.rule})")


def _without(text: str, places: Sequence[Place]) -> str:
    parts, end = [], 0
    for place in places:
        parts.append(text[end : place.new_start])
        end = place.new_end
    return _CUT.join([*parts, text[end:]])


def findings(text: str, originals: Collection[tuple[str, str]] = ()) -> Iterator[Finding]:
    """Yield what looks like an identifier in `text`, and the original values (entity, value) that it still holds in whatever layout."""
    plain = _plain(text)
    if "@" in plain and _MAIL.search(plain):
        yield Finding("at_sign", "EMAIL_ADDRESS")
    if sum(map(str.isdecimal, plain)) >= _LABELLED_DIGITS:
        yield from _numbers(plain)
    if originals:
        compact = _compact(plain)
        for entity, value in originals:
            if _stands(value, plain, compact):
                yield Finding("original", entity)


def _plain(text: str) -> str:
    """Fold width and compatibility forms, drop what cannot be seen and what names bytes: a digest holds runs of digits that mean nothing."""
    if not text.isascii():
        text = "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    return str(_DIGEST.sub(_CUT, text))


def _numbers(plain: str) -> Iterator[Finding]:
    if _MOBILE.search(plain):
        yield Finding("mobile", "PHONE_NUMBER")
    if _SOCIAL.search(plain):
        yield Finding("social", "US_SSN")
    if _INSURANCE.search(plain):
        yield Finding("insurance", "UK_NINO")
    for match in _LONG.finditer(plain, overlapped=True):
        digits = "".join(char for char in match.group() if char.isalnum())
        if len(digits) == 18 and _resident(digits):
            yield Finding("check_character", "CN_RESIDENT_ID")
        elif digits.isdecimal() and 13 <= len(digits) <= 19 and _sums_to_ten(digits):
            yield Finding("check_digit", "CREDIT_CARD")
    for pattern, entity in _labels():
        if any(not _nobodys(match["number"]) for match in pattern.finditer(plain)):
            yield Finding("label", entity)


def _nobodys(number: str) -> bool:
    """Return whether a number lies in the ranges of which Metier takes its surrogates (text may be de-identified twice), or is written as a date."""
    if _DATE.fullmatch(number):
        return True
    digits = "".join(char for char in number if char.isdecimal())
    beginning = {9: "000", 11: "12", 15: "00", 17: "00", 18: "00"}.get(len(digits), "9999")
    return digits.startswith((beginning, "9999")) or (len(digits) in (10, 11) and digits[-10:-7] == "555")


def _resident(text: str) -> bool:
    return "10X98765432"[sum(int(digit) * weight for digit, weight in zip(text, _WEIGHTS, strict=False)) % 11] == text[17]


def _sums_to_ten(digits: str) -> bool:
    """Luhn's check, done with the table of doubled digits (ISO/IEC 7812-1, annex B)."""
    return sum(int("0246813579"[int(digit)]) if place % 2 else int(digit) for place, digit in enumerate(reversed(digits))) % 10 == 0


@lru_cache(maxsize=1)
def _labels() -> tuple[tuple[regex.Pattern[str], str], ...]:
    """One pattern a kind: a label, at most a few characters that are no sentence's end, then a number."""
    number = rf"\.?[^0-9\n.;!?\u3002\uff1b,\uff0c]{{0,8}}?(?P<number>(?:[0-9][ -]?){{{_LABELLED_DIGITS - 1},}}[0-9])"
    made = []
    for entity, words in load_yaml(Path(__file__).parent / "data" / "sweep.yaml").value["labels"].items():
        han = "|".join(regex.escape(word) for word in sorted(words, key=len, reverse=True) if _HAN.search(word))
        latin = "|".join(regex.escape(word) for word in sorted(words, key=len, reverse=True) if not _HAN.search(word))
        either = "|".join(part for part in (han, rf"(?<![A-Za-z])(?:{latin})(?![A-Za-z])" if latin else "") if part)
        made.append((regex.compile(f"(?i)(?:{either}){number}"), entity))
    return tuple(made)


def _compact(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _stands(value: str, plain: str, compact: str) -> bool:
    """Return whether an original stands there: a number in whatever layout, a name as a word of its own."""
    needle = _compact(_plain(value))
    if any(map(str.isdecimal, needle)):
        return len(needle) >= _LABELLED_DIGITS + 1 and not _is_date(needle) and needle in compact
    if _HAN.search(needle):
        return len(needle) >= 3 and needle in compact
    return len(needle) >= 4 and any(True for _ in occurrences(_plain(value), plain, exact=True))


def _is_date(needle: str) -> bool:
    return len(needle) <= 8 and needle.isdecimal()
