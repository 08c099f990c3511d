"""Replaces the identifiers of a record: the same value gets the same surrogate in the whole project, and nothing original is left."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from metier.errors import Fault, PackError, PrivacyError, nearest
from metier.packs.matching import fold_width
from metier.packs.spec import Identifier
from metier.privacy.dates import shift
from metier.privacy.detect import Detector, detector, occurrences
from metier.privacy.surrogates import GENERATORS, Draw, normalise
from metier.records import Span

__all__ = ["Deidentified", "Surrogates", "deidentify", "surrogate_mark"]

_ATTEMPTS = 32
_SHORTEST_KEY = 16
_MOST_DAYS = 365
_SHORTEST_SWEPT = 5
_DATE = "date"


def surrogate_mark(key: bytes, surrogate: str) -> str:
    """Return `LENGTH:CODE` for a surrogate: its length in characters and 64 bits of its keyed hash (HMAC-SHA-256, RFC 2104).

    A later scan of the finished data can tell by the marks of a record which of its identifiers are Metier's own. Without the
    key nobody can, so what stands among the surrogates does not stick out.
    """
    code = hmac.new(key, f"surrogate\0{surrogate}".encode(), hashlib.sha256).hexdigest()[:16]
    return f"{len(surrogate)}:{code}"


class Surrogates:
    """The surrogates of one project. Whoever has the key can say which value became which surrogate, so it is kept apart from the data."""

    def __init__(self, key: bytes) -> None:
        if len(key) < _SHORTEST_KEY:
            raise PrivacyError(f"the key of the surrogates has {len(key)} bytes\n    -> give at least {_SHORTEST_KEY} random bytes")
        self._key = key

    def days(self, subject: str) -> int:
        """Return by how many days the dates of a subject move: 1 to 365, earlier or later, never 0."""
        draw = Draw(self._key, "days", subject)
        return draw.random.randrange(1, _MOST_DAYS + 1) * draw.random.choice((-1, 1))

    def make(self, identifier: Identifier, value: str, attempt: int = 0) -> str:
        """Return the surrogate for one value; another `attempt` gives another one. Dates are moved by `shifted` instead."""
        parts = [identifier.entity, normalise(value), *([str(attempt)] if attempt else [])]
        return GENERATORS[identifier.surrogate].make(Draw(self._key, *parts), value)

    def shifted(self, identifier: Identifier, value: str, days: int) -> str:
        """Return a date moved by `days`, or the name of its kind where its writing is not known."""
        return shift(fold_width(value), days) or f"[{identifier.entity}]"

    def hashed(self, identifier: Identifier, value: str) -> str:
        """Return ``[ENTITY:0123456789ab]`` with 48 bits of the keyed hash of the value."""
        code = hmac.new(self._key, f"hash\0{identifier.entity}\0{normalise(value)}".encode(), hashlib.sha256).hexdigest()[:12]
        return f"[{identifier.entity}:{code}]"


@dataclass(frozen=True, slots=True)
class Deidentified:
    """The texts of one record after replacement, what was found in them (offsets of the original) and what now stands there."""

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]
    issued: frozenset[str]
    """The surrogates that stand in this record; a later search that finds one of them has found no leak."""


def deidentify(
    texts: Sequence[str],
    *,
    identifiers: Sequence[Identifier],
    validators: Mapping[str, Callable[[str], bool]],
    language: str | None,
    surrogates: Surrogates,
    subject: str | None = None,
) -> Deidentified:
    """Replace every identifier in all texts of one record, taken together.

    `identifiers` and `validators` are those of `rules_of(pack)`. A value found in one text is replaced in all of them. The dates of a
    `subject` move by one number of days in the whole project, those of a record without a subject by one number within the record.
    After the replacement the output is searched again: for every original value (shorter ones than 5 characters only where they stood,
    names of two characters and more everywhere) and for identifiers outside the surrogates. Raises PrivacyError if anything is left or
    the rules cannot be run; the caller sets the record aside.
    """
    try:
        rules = detector(identifiers, language=language, validators=validators)
        _check_generators(rules)
        spans = rules.record(texts)
    except PackError as fault:
        raise PrivacyError(f"the identifiers of a record could not be looked for: {fault}") from fault
    if not any(spans):
        return Deidentified(tuple(texts), tuple(spans), frozenset())
    replacements = _replacements(texts, spans, rules, surrogates, subject)
    written = [_write(text, found, replacements) for text, found in zip(texts, spans, strict=True)]
    outputs = tuple(text for text, _ in written)
    _sweep(outputs, [places for _, places in written], spans, rules)
    return Deidentified(outputs, tuple(spans), frozenset(replacements.values()))


def _check_generators(rules: Detector) -> None:
    known = [*GENERATORS, _DATE]
    if faults := [
        Fault(f"{item.entity} names the surrogate {item.surrogate!r}, which nothing makes", remedy=nearest(item.surrogate, known))
        for item in rules.identifiers
        if item.surrogate not in known
    ]:
        raise PackError(faults)


def _replacements(
    texts: Sequence[str], spans: Sequence[tuple[Span, ...]], rules: Detector, surrogates: Surrogates, subject: str | None
) -> dict[tuple[str, str], str]:
    """Return (entity, value) -> what stands for it; no two values share a surrogate and none is, or holds, an original value."""
    values = {(span.type, span.text): rules.by_entity[span.type] for found in spans for span in found}
    originals = {value for (_, value) in values if len(value) >= 2}
    days = surrogates.days(f"subject\0{subject}" if subject is not None else "record\0" + "\0".join(texts))
    taken: dict[str, str] = {}
    out: dict[tuple[str, str], str] = {}
    for (entity, value), identifier in values.items():
        if identifier.replace == "mask":
            out[entity, value] = f"[{entity}]"
        elif identifier.replace == "hash":
            out[entity, value] = surrogates.hashed(identifier, value)
        elif identifier.surrogate == _DATE:
            out[entity, value] = surrogates.shifted(identifier, value, days)
        else:
            out[entity, value] = _fresh(identifier, value, surrogates, taken, originals)
    return out


def _fresh(identifier: Identifier, value: str, surrogates: Surrogates, taken: dict[str, str], originals: set[str]) -> str:
    shared = GENERATORS[identifier.surrogate].shared
    owner = f"{identifier.entity}\0{normalise(value)}"
    for attempt in range(_ATTEMPTS):
        made = surrogates.make(identifier, value, attempt)
        if shared:
            return made
        if normalise(made) == normalise(value) or any(any(occurrences(original, made)) for original in originals):
            continue
        if taken.setdefault(normalise(made), owner) == owner:
            return made
    return f"[{identifier.entity}]"


def _write(text: str, spans: Sequence[Span], replacements: Mapping[tuple[str, str], str]) -> tuple[str, list[tuple[int, int]]]:
    parts: list[str] = []
    places: list[tuple[int, int]] = []
    length = end = 0
    for span in spans:
        surrogate = replacements[span.type, span.text]
        parts += [text[end : span.start], surrogate]
        length += span.start - end
        places.append((length, length + len(surrogate)))
        length += len(surrogate)
        end = span.end
    return "".join([*parts, text[end:]]), places


def _sweep(outputs: Sequence[str], places: Sequence[list[tuple[int, int]]], spans: Sequence[tuple[Span, ...]], rules: Detector) -> None:
    """Search the output again; a thing that lies outside every surrogate and is an identifier, or holds an original value, is a leak."""
    originals = {(span.type, span.text) for found in spans for span in found}
    for output, taken in zip(outputs, places, strict=True):
        for entity, value in originals:
            swept = len(value) >= (2 if entity == "PERSON" else _SHORTEST_SWEPT)
            if (
                swept
                and rules.by_entity[entity].surrogate not in (_DATE,)
                and any(not _inside(place, taken) for place in occurrences(value, output, exact=True))
            ):
                raise PrivacyError(f"an original value of {entity} is still in the record after replacement")
        for span in rules.spans(output):
            if not any(start < span.end and span.start < end for start, end in taken):
                raise PrivacyError(f"{span.type} is found in the record after replacement")


def _inside(place: tuple[int, int], taken: Sequence[tuple[int, int]]) -> bool:
    return any(start <= place[0] and place[1] <= end for start, end in taken)
