"""What a policy's actions write in the place of the values of one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from metier.packs.spec import Examples, Identifier
from metier.privacy.detect import occurrences
from metier.privacy.generalise import generalise
from metier.privacy.keyed import Surrogates
from metier.privacy.policy import DATE, Policy, Treatment
from metier.privacy.surrogates import GENERATORS, normalise

__all__ = ["Tokens", "Written", "identifier_of", "written"]

_ATTEMPTS = 32
_KINDS = {"PERSON": "person_name", "ORGANIZATION": "organisation", "LOCATION": "address", "ADDRESS": "address", "DATE": DATE, "TIME": DATE, "AGE": "age"}
"""Kinds of the entities that only taggers find, after Presidio's names."""
_NONE = Examples(match=("-",), reject=("-",))


class Tokens(Protocol):
    """Makes the token by which a vault finds a value again."""

    def token(self, entity: str, value: str) -> str:
        """Return the token of a value: the same one for the same value."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What stands for one value, and why."""

    text: str
    action: str
    clause: str
    token: str | None = None


def identifier_of(entity: str, known: Mapping[str, Identifier]) -> Identifier:
    """Return the identifier of an entity; for one that only a tagger finds, one that says what kind of value it is."""
    found = known.get(entity)
    return found or Identifier(entity=entity, pattern="(?!)", surrogate=_KINDS.get(entity, "shape"), examples=_NONE)


def written(
    values: Mapping[tuple[str, str], Identifier], *, surrogates: Surrogates, days: int, policy: Policy | None, tokens: Tokens | None
) -> dict[tuple[str, str], Written]:
    """Return (entity, value) -> what stands for it. What stays as it is (kept, or an age that may stay) is not in it.

    No two values share a surrogate and none is, or holds, an original value. An action that does not fit a value masks it.
    """
    treatments = {key: _treatment(identifier, policy) for key, identifier in values.items()}
    originals = {value for (_, value), treatment in zip(values, treatments.values(), strict=True) if treatment.action != "keep" and len(value) >= 2}
    taken: dict[str, str] = {}
    out: dict[tuple[str, str], Written] = {}
    for (entity, value), identifier in values.items():
        treatment = treatments[entity, value]
        if treatment.action == "keep":
            continue
        text = _text(treatment, identifier, value, surrogates=surrogates, days=days, tokens=tokens)
        if text is None:
            text = _fresh(identifier, value, surrogates, taken, originals)
        if text == value and treatment.action == "generalise":
            continue
        token = None if tokens is None else tokens.token(entity, value)
        out[entity, value] = Written(text, treatment.action, treatment.clause, token)
    return out


def _treatment(identifier: Identifier, policy: Policy | None) -> Treatment:
    """Return what is done with an identifier, with `rule` read as what the rule says."""
    found = Treatment(action="rule", clause="the identifier's own rule") if policy is None else policy.treatment(identifier)
    if found.action != "rule":
        return found
    return found.model_copy(update={"action": "shift" if identifier.replace == "surrogate" and identifier.surrogate == DATE else identifier.replace})


def _text(treatment: Treatment, identifier: Identifier, value: str, *, surrogates: Surrogates, days: int, tokens: Tokens | None) -> str | None:
    """Return what an action writes, None where it is a surrogate that has to be drawn among those of the record."""
    mask = treatment.text if treatment.text is not None else f"[{identifier.entity}]"
    action = treatment.action
    if action == "remove":
        return ""
    if action == "hash" or (action == "token" and tokens is None):
        return surrogates.hashed(identifier, value)
    if action == "token" and tokens is not None:
        return f"[{identifier.entity}:{tokens.token(identifier.entity, value)}]"
    if action == "generalise":
        left = generalise(treatment, value)
        return mask if left is None else left
    if identifier.surrogate == DATE and action in ("shift", "surrogate"):
        return surrogates.shifted(identifier, value, days)
    return None if action == "surrogate" else mask


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
