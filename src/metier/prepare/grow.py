"""What is added to the training split after it is decided: variants of its records. They stay with their parents, whatever happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from metier.packs.spec import Pack
from metier.prepare.augment import KIND, Means, augment, effect
from metier.prepare.drafts import Draft, Drafts
from metier.prepare.settings import PrepareSettings
from metier.prepare.standardize import Lexicon
from metier.privacy.detect import detector
from metier.privacy.general import Rules
from metier.progress import Progress
from metier.records import Drop, Record

__all__ = ["Grown", "grow"]

_TASK = "augment"


@dataclass(frozen=True, slots=True)
class Grown:
    """New drafts by the id of their parent, in a fixed order; what was not good enough; and the effect on the set."""

    children: Mapping[str, tuple[Draft, ...]]
    drops: tuple[Drop, ...]
    facts: Mapping[str, Any]


def grow(
    drafts: Drafts, splits: Mapping[str, str], settings: PrepareSettings, pack: Pack, rules: Rules, *, lexicon: Lexicon | None, progress: Progress
) -> Grown:
    """Return the variants of the training drafts. Training records are held in memory while this step is on."""
    if not settings.augment.enabled:
        return Grown({}, (), {})
    parents = {draft.record.id: draft for draft in drafts if splits[draft.row.record.id] == "train"}
    records = [draft.record for draft in parents.values()]
    progress.start(_TASK, None, "records")

    def identifies(text: str) -> bool:
        return bool(detector(rules[0], language=None, validators=rules[1]).spans(text))

    means = Means(phrases=pack.phrases, terms=pack.lexicon, lexicon=lexicon, identifies=identifies)
    children: dict[str, list[Draft]] = {}
    drops: list[Drop] = []
    made: list[Record] = []
    for item in augment(records, settings.augment, means):
        progress.advance(_TASK)
        if isinstance(item, Drop):
            drops.append(item)
            continue
        parent = parents[item.parents[0]]
        child = replace(parent, record=item, notes=(*parent.notes, f"{_TASK}:{item.metadata[KIND]}"))
        children.setdefault(parent.record.id, []).append(child)
        made.append(item)
    progress.finish(_TASK, f"{len(made)} variants")
    facts = {"augment": {**effect(records, [*records, *made]), "variants": len(made), "refused": len(drops)}}
    return Grown({name: tuple(found) for name, found in children.items()}, tuple(drops), facts)
