"""Boilerplate lines: those of a list in two languages, those of the user, and those that a source repeats in many records."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import regex

from metier.config import load_yaml
from metier.errors import Fault, InputError
from metier.packs.matching import TIMEOUT_SECONDS
from metier.prepare.clean.settings import CleanSettings
from metier.prepare.compare import critical
from metier.prepare.language import han_share
from metier.prepare.strings import strings
from metier.records import Record

__all__ = ["Boilerplate", "listed_lines", "repeated_lines", "without_lines"]

_LONGEST = 200
"""Longer lines are sentences of the text; they are never taken for boilerplate."""
_SHORTEST_HAN, _SHORTEST_OTHER = 8, 20
"""Shorter lines are answers (`Caller: Yes.`) and headings more often than frames of a page."""
_EDGE = 3
"""A frame stands in the first or the last lines of a text; what repeats inside is part of what is said."""
_BITS = 8
_TURN = regex.compile(r"[^:\uff1a]{1,20}[:\uff1a]")


@dataclass(frozen=True, slots=True)
class Boilerplate:
    """The lines that sources repeat: for each source (its URI) the digests of the lines, and how many records were counted."""

    lines: dict[str, frozenset[bytes]] = field(default_factory=dict)
    records: int = 0

    def holds(self, source: str, line: str) -> bool:
        """Return whether this line is one that its source repeats."""
        return _digest(line) in self.lines.get(source, ())


def _digest(line: str) -> bytes:
    return hashlib.blake2b(line.strip().encode("utf-8", "surrogatepass"), digest_size=_BITS).digest()


def _uri(record: Record) -> str:
    return record.source.uri if record.source else ""


def repeated_lines(records: Iterable[Record], settings: CleanSettings) -> Boilerplate:
    """Return the lines that as many of a source's records hold as `settings.repeated` asks for.

    Only the first and last three lines of a text count, from 8 (Han) or 20 (other) to 200 characters, and none that begins
    with a label and a colon, or holds a number or a word that turns a statement round: `no known allergies` may stand in
    every record and still mean something in each. Memory grows with the number of different lines: 8 bytes a digest and the counter's entry.
    """
    counts: dict[str, Counter[bytes]] = {}
    totals: Counter[str] = Counter()
    for record in records:
        uri = _uri(record)
        totals[uri] += 1
        found = {line for text in strings(record) if "\n" in text for line in _edges(text)}
        counts.setdefault(uri, Counter()).update(_digest(line) for line in found if _may_repeat(line))
    if settings.repeated is None:
        return Boilerplate({}, sum(totals.values()))
    needed = {uri: max(settings.repeated.minimum, settings.repeated.share * total) for uri, total in totals.items()}
    lines = {uri: frozenset(digest for digest, count in found.items() if count >= needed[uri]) for uri, found in counts.items()}
    return Boilerplate(lines, sum(totals.values()))


def _edges(text: str) -> list[str]:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines if len(lines) <= 2 * _EDGE else [*lines[:_EDGE], *lines[-_EDGE:]]


def _may_repeat(line: str) -> bool:
    shortest = _SHORTEST_HAN if han_share(line) > 0.5 else _SHORTEST_OTHER
    return shortest <= len(line) <= _LONGEST and _TURN.match(line) is None and not critical(line)


@lru_cache(maxsize=1)
def listed_lines() -> list[dict[str, Any]]:
    """Return the entries of the shipped list: name, pattern, lines that it matches and lines that it leaves."""
    entries: list[dict[str, Any]] = load_yaml(Path(__file__).parent / "data" / "boilerplate.yaml").value["lines"]
    return entries


@lru_cache(maxsize=8)
def _pattern(listed: bool, own: tuple[str, ...]) -> regex.Pattern[str] | None:
    parts = [*([entry["pattern"] for entry in listed_lines()] if listed else []), *own]
    return regex.compile("|".join(f"(?:{part})" for part in parts), regex.IGNORECASE) if parts else None


def without_lines(text: str, settings: CleanSettings, repeated: Boilerplate | None, source: str) -> tuple[str, int]:
    """Return the text without boilerplate lines and how many left. A text that is boilerplate from end to end stays as it is.

    Raises InputError for a pattern of the settings that does not finish on a line in time, and if repeated lines are to leave that nobody
    has counted.
    """
    if settings.repeated is not None and repeated is None:
        raise InputError(Fault("repeated lines are to leave, and they were not counted", key="prepare.clean.repeated", remedy="call repeated_lines first"))
    pattern = _pattern(settings.boilerplate, settings.boilerplate_lines)
    known = repeated.lines.get(source) if repeated is not None else None
    if pattern is None and not known:
        return text, 0
    lines = text.split("\n")
    kept = [line for line in lines if not _leaves(line.strip(), pattern, known)]
    if len(kept) == len(lines) or not any(line.strip() for line in kept):
        return text, 0
    return "\n".join(kept), len(lines) - len(kept)


def _leaves(line: str, pattern: regex.Pattern[str] | None, known: frozenset[bytes] | None) -> bool:
    if not line or len(line) > _LONGEST:
        return False
    if known and _digest(line) in known:
        return True
    try:
        return pattern is not None and pattern.fullmatch(line, timeout=TIMEOUT_SECONDS) is not None
    except TimeoutError:
        what = f"a pattern did not finish on one line within {TIMEOUT_SECONDS:g} s"
        raise InputError(Fault(what, key="prepare.clean.boilerplate_lines", remedy="remove nested repetition from the patterns")) from None
