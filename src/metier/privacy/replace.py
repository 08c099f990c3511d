"""Replaces the identifiers of a record by a policy: the same value gets the same surrogate in the whole project, and nothing original is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from metier.errors import Fault, PackError, PrivacyError, nearest
from metier.packs.spec import Identifier
from metier.privacy.actions import Tokens, Written, identifier_of, written
from metier.privacy.detect import Detector, Tagger, detector
from metier.privacy.general import general_identifiers
from metier.privacy.keyed import Surrogates
from metier.privacy.policy import DATE, Policy
from metier.privacy.surrogates import GENERATORS
from metier.privacy.sweeping import second_sweep, sweep
from metier.records import Span

__all__ = ["Deidentified", "Replacement", "deidentify_texts", "looked_for"]


@dataclass(frozen=True, slots=True)
class Replacement:
    """What stood at `start` to `end` of the original text, and what stands at `new_start` to `new_end` of the new one; code points."""

    start: int
    end: int
    entity: str
    score: float
    rule: str
    action: str
    clause: str
    text: str
    """What stands there now."""
    new_start: int
    new_end: int
    token: str | None = None
    """By which a vault finds the original, where one is kept."""


@dataclass(frozen=True, slots=True)
class Deidentified:
    """The texts of one record after replacement, what was replaced in them (offsets of the original) and what now stands there."""

    texts: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...]
    issued: frozenset[str]
    """What was written in the place of identifiers; a later search that finds one of them has found no leak."""
    replacements: tuple[tuple[Replacement, ...], ...] = ()
    """For each text, what was replaced by what, in order."""


def looked_for(identifiers: Sequence[Identifier], policy: Policy | None) -> tuple[Identifier, ...]:
    """Return the identifiers that a policy does not keep: what stays must not hide what has to go, so it is not even looked for."""
    return tuple(item for item in identifiers if policy is None or not policy.keeps(item))


def deidentify_texts(
    texts: Sequence[str],
    *,
    identifiers: Sequence[Identifier],
    validators: Mapping[str, Callable[[str], bool]],
    language: str | None,
    surrogates: Surrogates,
    subject: str | None = None,
    policy: Policy | None = None,
    taggers: Sequence[Tagger] = (),
    tokens: Tokens | None = None,
    independent: bool = True,
) -> Deidentified:
    """Replace every identifier in all texts of one record, taken together.

    `identifiers` and `validators` are those of `rules_of(pack)`, without those that the policy keeps (`looked_for`). Without a
    `policy` each identifier is treated as its own rule says. A value found in one text is replaced in all of them. The dates of a
    `subject` move by one number of days in the whole project, those of a record without a subject by one number within the record.
    `tokens` makes the tokens of a vault.

    After the replacement the output is searched again: for every original value and for identifiers outside the surrogates, and,
    where `independent`, a second time by rules of another make (see metier.privacy.sweeping). Raises PrivacyError if anything is
    left or the rules cannot be run; the caller sets the record aside.
    """
    try:
        rules = detector(identifiers, language=language, validators=validators, taggers=taggers)
        _check_generators(rules)
        found = rules.record(texts)
    except PackError as fault:
        raise PrivacyError(f"the identifiers of a record could not be looked for: {fault}") from fault
    days = surrogates.days(f"subject\0{subject}" if subject is not None else "record\0" + "\0".join(texts))
    values = {(span.type, span.text): identifier_of(span.type, rules.by_entity) for spans in found for span in spans}
    texts_of = written(values, surrogates=surrogates, days=days, policy=policy, tokens=tokens)
    spans = tuple(tuple(span for span in here if (span.type, span.text) in texts_of) for here in found)
    made = [_write(text, here, texts_of) for text, here in zip(texts, spans, strict=True)]
    outputs = tuple(text for text, _ in made)
    replacements = tuple(places for _, places in made)
    sweep(outputs, replacements, spans, rules, unchanged=values.keys() - texts_of.keys())
    if independent:
        second_sweep(outputs, replacements, spans, kept=_kept(policy))
    return Deidentified(outputs, spans, frozenset(item.text for item in texts_of.values() if item.text), replacements)


def _kept(policy: Policy | None) -> Callable[[str], bool]:
    """Return whether a policy keeps a kind that the second search names; what it keeps is not among the rules any more."""
    known = {item.entity: item for item in general_identifiers()}
    return lambda entity: policy is not None and policy.keeps(identifier_of(entity, known))


def _check_generators(rules: Detector) -> None:
    known = [*GENERATORS, DATE]
    if faults := [
        Fault(f"{item.entity} names the surrogate {item.surrogate!r}, which nothing makes", remedy=nearest(item.surrogate, known))
        for item in rules.identifiers
        if item.surrogate not in known
    ]:
        raise PackError(faults)


def _write(text: str, spans: Sequence[Span], texts_of: Mapping[tuple[str, str], Written]) -> tuple[str, tuple[Replacement, ...]]:
    parts: list[str] = []
    places: list[Replacement] = []
    length = end = 0
    for span in spans:
        new = texts_of[span.type, span.text]
        parts += [text[end : span.start], new.text]
        length += span.start - end
        place = (length, length + len(new.text))
        places.append(Replacement(span.start, span.end, span.type, span.score, span.rule, new.action, new.clause, new.text, *place, new.token))
        length += len(new.text)
        end = span.end
    return "".join([*parts, text[end:]]), tuple(places)
