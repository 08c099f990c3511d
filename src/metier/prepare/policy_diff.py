"""Simulates two policies on the same rows: how often each would do what with which kind of identifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from metier import packs
from metier.prepare.rowfiles import RowFile
from metier.prepare.rowtexts import texts
from metier.privacy.actions import identifier_of, written
from metier.privacy.detect import detector
from metier.privacy.general import general_identifiers, rules_of
from metier.privacy.keyed import Surrogates
from metier.privacy.once import AUTO, language_of
from metier.privacy.policy import Policy
from metier.privacy.validators import VALIDATORS

__all__ = ["Difference", "compare_policies"]

_KEY = b"a comparison, not a release"


@dataclass(slots=True)
class _Side:
    actions: Counter[str] = field(default_factory=Counter)
    example: str | None = None

    def document(self) -> dict[str, Any]:
        return {"actions": dict(sorted(self.actions.items())), "example": self.example}


@dataclass(frozen=True, slots=True)
class Difference:
    """How many rows were looked at, and for each entity what each of the two policies would do: actions with counts, an example."""

    rows: int
    entities: dict[str, list[dict[str, Any]]]


def compare_policies(
    source: Path,
    fields: Sequence[str],
    pair: tuple[Policy, Policy],
    *,
    language: str | None = AUTO,
    pack: str | None = None,
    encoding: str = "utf-8",
    rows: int = 1000,
) -> Difference:
    """Return what two policies would do with the identifiers in the first `rows` rows of a file. Nothing is written.

    What a policy keeps counts as `keep`, what it lets stand (an age under the limit) as `unchanged`. Examples show the original masked
    (only length and writing stay), and what would stand there.
    """
    identifiers, validators = (general_identifiers(), VALIDATORS) if pack is None else rules_of(packs.load(pack))
    sides: dict[str, tuple[_Side, _Side]] = {}
    seen = 0
    for row in islice(RowFile(source, encoding=encoding).rows(), rows):
        if row.values is None:
            continue
        seen += 1
        found = [text for _, text in texts(row.values, fields)]
        chosen = language_of("\n".join(found)) if language == AUTO else language
        rules = detector(identifiers, language=chosen, validators=validators)
        spans = [span for here in rules.record(found) for span in here]
        values = {(span.type, span.text): identifier_of(span.type, rules.by_entity) for span in spans}
        for place, policy in enumerate(pair):
            made = written(values, surrogates=Surrogates(_KEY), days=30, policy=policy, tokens=None)
            for span in spans:
                side = sides.setdefault(span.type, (_Side(), _Side()))[place]
                new = made.get((span.type, span.text))
                kept = policy.keeps(values[span.type, span.text])
                side.actions["keep" if kept else "unchanged" if new is None else new.action] += 1
                if side.example is None:
                    side.example = f"{_masked(span.text)} -> {'stays' if new is None else new.text or '(removed)'}"
    return Difference(seen, {entity: [side.document() for side in both] for entity, both in sorted(sides.items())})


def _masked(value: str) -> str:
    """Return a value's length and writing: digits become 9, letters x or a block, the rest stays."""
    return "".join("9" if char.isdigit() else ("x" if char.isascii() else "\u25a0") if char.isalpha() else char for char in value)
