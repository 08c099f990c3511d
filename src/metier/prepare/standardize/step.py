"""The step: every string of a record is searched; codes go into the metadata and, on demand, preferred terms into the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metier.errors import Fault, InputError, nearest
from metier.packs.spec import Pack, Term
from metier.prepare.compare import critical
from metier.prepare.standardize.lexicon import Lexicon, Match, compile_lexicon, fold
from metier.prepare.standardize.negation import denied
from metier.prepare.standardize.places import TERMS
from metier.prepare.standardize.sections import Sections
from metier.prepare.standardize.settings import StandardizeSettings
from metier.prepare.standardize.units import write_units
from metier.prepare.standardize.user import read_lexicons
from metier.records import Message, Record, with_text

__all__ = ["TERMS", "lexicon_of", "mentions", "standardize"]

_ROUNDS = 4


def lexicon_of(pack: Pack, settings: StandardizeSettings, root: Path) -> Lexicon:
    """Return the lexicon that the settings ask for: the user's files, the pack's own, the pack's systems; the first of them wins.

    Raises InputError for a file that cannot be read or contradicts itself, and for a system that the pack does not offer.
    """
    unknown = [name for name in settings.systems if name not in pack.lexicons]
    if unknown:
        faults = [
            Fault(f"the pack {pack.facts.name} offers no lexicon {name!r}", key="prepare.standardize.systems", remedy=nearest(name, list(pack.lexicons)))
            for name in unknown
        ]
        raise InputError(faults)
    layers: list[Iterable[Term]] = []
    if settings.lexicons:
        layers.append(read_lexicons([root / path for path in settings.lexicons]))
    if settings.pack:
        layers.append(pack.lexicon)
    layers += [pack.lexicons[name]() for name in settings.systems]
    return compile_lexicon(layers)


@dataclass(slots=True)
class _Found:
    """What a record's strings hold."""

    terms: list[dict[str, Any]]
    counts: Counter[str]


def mentions(text: str, lexicon: Lexicon, settings: StandardizeSettings, language: str | None = None) -> list[dict[str, Any]]:
    """Return the terms in a text, in order: surface, preferred, code, system, start, end, negated, and section where there is one.

    A name of several codes is left out. `language` chooses the preferred term; without it the first of the concept is taken.
    """
    return [item for item, _ in _mentions(text, lexicon, settings, language, Counter())]


def _mentions(text: str, lexicon: Lexicon, settings: StandardizeSettings, language: str | None, counts: Counter[str]) -> list[tuple[dict[str, Any], Match]]:
    folded = fold(text)
    matches = lexicon.matches(text, folded)
    if not matches:
        return []
    verdicts = [False] * len(matches)
    if settings.negation:
        verdicts = denied(text, matches, words=settings.reach_words, characters=settings.reach_characters, folded=folded)
    sections = Sections(text) if settings.sections else None
    found = []
    for match, verdict in zip(matches, verdicts, strict=True):
        if len(match.concepts) > 1:
            counts["ambiguous"] += 1
            continue
        concept = match.concepts[0]
        item: dict[str, Any] = {
            "surface": text[match.start : match.end],
            "preferred": concept.preferred.get(language or "") or next(iter(concept.preferred.values())),
            "code": concept.code,
            "system": concept.system,
            "start": match.start,
            "end": match.end,
            "negated": verdict,
        }
        if sections is not None and (title := sections.title(match.start)) is not None:
            item["section"] = title
        found.append((item, match))
    return found


def standardize(record: Record, settings: StandardizeSettings, lexicon: Lexicon) -> tuple[Record, tuple[str, ...]]:
    """Return the record with its terms in `metadata["terms"]`, and what was done, as `standardize:terms=3`.

    Each entry names its field (`text`, `messages.0`, `metadata.NAME`) beside what `mentions` gives; offsets are those of the text
    as it is afterwards, `surface` is what stood there before. Applying the step twice changes nothing more. Steps that follow move
    offsets along or take them away (see `places`).
    """
    if not settings.enabled:
        return record, ()
    earlier = {_place(item): item["surface"] for item in record.metadata.get(TERMS, ())} if TERMS in record.metadata else {}
    found = _Found([], Counter())

    def work(field: str, text: str) -> str:
        if settings.mode == "replace":
            text, items = _replaced(text, lexicon, settings, record.language, found.counts)
        else:
            items = [item for item, _ in _mentions(text, lexicon, settings, record.language, found.counts)]
        for item in items:
            item = {"field": field, **item}
            if earlier:
                item["surface"] = earlier.get(_place(item), item["surface"])
            found.terms.append(item)
        return text

    text = work("text", record.text) if record.text else record.text
    messages = tuple(_message(message, work(f"messages.{number}", message.content)) for number, message in enumerate(record.messages))
    metadata = {name: _inside(f"metadata.{name}", value, work) for name, value in record.metadata.items() if name != TERMS}
    if found.terms:
        metadata[TERMS] = found.terms
    found.counts["terms"] = len(found.terms)
    found.counts["negated"] = sum(item["negated"] for item in found.terms)
    notes = tuple(f"standardize:{name}={count}" for name, count in sorted(found.counts.items()) if count)
    if not notes and (text, messages, metadata) == (record.text, record.messages, record.metadata):
        return record, ()
    return replace(with_text(record, text), messages=messages, metadata=metadata), notes


def _message(message: Message, content: str) -> Message:
    return message if message.content == content else replace(message, content=content)


def _place(item: Mapping[str, Any]) -> tuple[Any, ...]:
    return item["field"], item["start"], item["end"], item["code"], item["system"]


def _inside(field: str, value: Any, work: Any) -> Any:
    if isinstance(value, str):
        return work(field, value)
    if isinstance(value, Mapping):
        return {name: _inside(f"{field}.{name}", item, work) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_inside(f"{field}.{number}", item, work) for number, item in enumerate(value)]
    return value


def _replaced(text: str, lexicon: Lexicon, settings: StandardizeSettings, language: str | None, counts: Counter[str]) -> tuple[str, list[dict[str, Any]]]:
    """Rewrite a text until nothing more changes, and return it with its terms. A text that never settles stays as it was."""
    original, units, rewritten = text, 0, 0
    surfaces: dict[tuple[int, int], str] = {}
    for _ in range(_ROUNDS):
        ignored: Counter[str] = Counter()
        found = _mentions(text, lexicon, settings, language, ignored)
        edits = _edits(text, found, settings, language)
        if edits:
            rewritten += len(edits)
            text, surfaces = _apply(text, edits, surfaces)
            continue
        # Units come last, for what follows one decides whether it is one; the terms are then looked for where they stand now.
        written, number = write_units(text) if settings.units else (text, 0)
        if written == text:
            counts["units"] += units
            counts["ambiguous"] += ignored["ambiguous"]
            counts["replaced"] += rewritten
            items = [item for item, _ in found]
            return text, [{**item, "surface": surfaces.get((item["start"], item["end"]), item["surface"])} for item in items]
        moved = {(item["start"], item["end"]): surfaces.get((item["start"], item["end"]), item["surface"]) for item, _ in found}
        surfaces = _carried(moved, [item for item, _ in found], _mentions(written, lexicon, settings, language, Counter()))
        text, units = written, units + number
    counts["unsettled"] += 1
    return original, [item for item, _ in _mentions(original, lexicon, settings, language, counts)]


def _carried(
    surfaces: Mapping[tuple[int, int], str], before: Sequence[Mapping[str, Any]], after: Sequence[tuple[dict[str, Any], Match]]
) -> dict[tuple[int, int], str]:
    """Return the surfaces by the places that the same terms, in the same order, have after units were written."""
    if [item["code"] for item in before] != [item["code"] for item, _ in after]:
        return {}
    return {(new["start"], new["end"]): surfaces[old["start"], old["end"]] for old, (new, _) in zip(before, after, strict=True)}


def _edits(text: str, found: Sequence[tuple[dict[str, Any], Match]], settings: StandardizeSettings, language: str | None) -> list[tuple[int, int, str, int]]:
    """Return what to rewrite: start, end, the new text and how much of it is the preferred term.

    A denied mention stays as it was said. So does one whose preferred term holds other numbers or turning words, or is
    missing in the language of the text.
    """
    edits, known = [], set()
    for number, (item, match) in enumerate(found):
        concept = match.concepts[0]
        preferred = concept.preferred.get(language or "", "")
        surface = item["surface"]
        first = concept.code not in known
        known.add(concept.code)
        if not preferred or surface == preferred or item["negated"] or critical(surface) != critical(preferred):
            continue
        if not match.abbreviation:
            if surface.casefold() != preferred.casefold():
                edits.append((item["start"], item["end"], preferred, len(preferred)))
        elif settings.abbreviations and first and not _explained(text, found, number):
            edits.append(
                (item["start"], item["end"], f"{preferred} ({surface})" if preferred.isascii() else f"{preferred}\uff08{surface}\uff09", len(preferred))
            )
    return edits


def _explained(text: str, found: Sequence[tuple[dict[str, Any], Match]], number: int) -> bool:
    """Return whether the long form and the short one explain each other here: LONG (SHORT) or SHORT (LONG)."""
    item, match = found[number]
    for other in (number - 1, number + 1):
        if 0 <= other < len(found) and found[other][1].concepts[0] == match.concepts[0]:
            left, right = sorted((item["start"], found[other][0]["start"]))
            end = min((item, found[other][0]), key=lambda one: one["start"])["end"]
            if left < right and text[end:right].strip() in ("(", "\uff08", ""):
                return True
    return False


def _apply(text: str, edits: Sequence[tuple[int, int, str, int]], surfaces: Mapping[tuple[int, int], str]) -> tuple[str, dict[tuple[int, int], str]]:
    """Return the rewritten text and, by the new place of each preferred term, what stood there at first."""
    pieces, at, shift = [], 0, 0
    moved: dict[tuple[int, int], str] = {}
    kept = dict(surfaces)
    shifts: list[tuple[int, int]] = []
    for start, end, new, length in edits:
        pieces += [text[at:start], new]
        moved[start + shift, start + shift + length] = kept.pop((start, end), text[start:end])
        shift += len(new) - (end - start)
        shifts.append((end, shift))
        at = end
    for (start, end), surface in kept.items():
        by = next((amount for place, amount in reversed(shifts) if place <= start), 0)
        moved[start + by, end + by] = surface
    return "".join(pieces) + text[at:], moved
