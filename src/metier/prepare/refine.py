"""What happens to each source row alone: cleaning, language, de-identification, rules, templates. Runs in the engine's processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from metier.packs.matching import applies, quality_reason
from metier.packs.spec import Identifier, QualityRule
from metier.prepare.chunks import Entry, Refined
from metier.prepare.clean import clean
from metier.prepare.compose import Composer
from metier.prepare.deidentify import deidentify, year_only
from metier.prepare.language import detect
from metier.prepare.settings import CleanSettings, DeidentifySettings
from metier.prepare.strings import content
from metier.records import Drop, Record, record_to_dict

__all__ = ["Plan", "drop", "refine"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that refining depends on beside the row itself."""

    clean: CleanSettings
    deidentify: DeidentifySettings
    identifiers: tuple[Identifier, ...]
    validators: Mapping[str, Callable[[str], bool]]
    quality: tuple[QualityRule, ...]
    composer: Composer
    languages: tuple[str, ...]
    domain: str
    key: bytes = field(repr=False)


def drop(record: Record, step: str, reason: str) -> Drop:
    """Return the drop of a record that is kept as JSON in the ledger."""
    return Drop(record.id, step, reason, record.source, json.dumps(record_to_dict(record), ensure_ascii=False, sort_keys=True))


def refine(plan: Plan, items: Sequence[Record | Drop]) -> list[Entry]:
    """Return what becomes of each item, in order; drops of the sources pass through."""
    return [entry for item in items for entry in ([item] if isinstance(item, Drop) else _row(plan, item))]


def _row(plan: Plan, record: Record) -> Iterator[Entry]:
    transforms = []
    record, changed = clean(record, plan.clean)
    if changed:
        transforms.append("clean")
    language = record.language or detect(content(record))
    record = replace(record, language=language, domain=record.domain or plan.domain)
    try:
        record, found, marks = deidentify(record, plan.deidentify, plan.identifiers, plan.validators, plan.key)
    except Exception as error:  # noqa: BLE001 - fails closed: whatever went wrong, the row leaves, and its text is neither kept nor shown
        yield Drop(record.id, "deidentify", f"deidentify_failed:{type(error).__name__}", record.source)
        return
    transforms += found
    reason = _refusal(plan, record)
    if reason is None:
        yield Refined(record, tuple(transforms), marks, tuple(plan.composer.compose(record)))
    else:
        yield drop(year_only(record) if plan.deidentify.enabled else record, *reason)


def _refusal(plan: Plan, record: Record) -> tuple[str, str] | None:
    """Return the step and reason that make a row leave, or None."""
    text = content(record)
    if not text or any(not message.content.strip() for message in record.messages):
        return "clean", "empty_content"
    if record.language is not None and record.language not in plan.languages:
        return "language", f"other_language:{record.language}"
    for rule in plan.quality:
        if applies(rule.languages, record.language) and (reason := quality_reason(rule, text)) is not None:
            return "quality", reason
    return None
