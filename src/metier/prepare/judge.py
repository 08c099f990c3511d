"""What is said of the whole set before it is divided: quality, labels, lengths, groups. What the settings ask to leave, leaves here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metier.packs.spec import Pack
from metier.prepare.bias import BiasSettings, bias_facts, group_views, topics
from metier.prepare.drafts import Drafts
from metier.prepare.labels import Examined, class_balance, contradictions, examine, label_facts, write_review
from metier.prepare.lengths import length_report
from metier.prepare.outside import Outside
from metier.prepare.quality import Assessment, Means, QualitySettings, assess, means_for, write_report
from metier.prepare.refine import counter_of
from metier.prepare.settings import PrepareSettings
from metier.progress import Progress
from metier.records import Record

__all__ = ["REVIEW_FILE", "judge"]

REVIEW_FILE = "labels-review.jsonl"
_STEP_QUALITY, _STEP_LABELS = "quality", "labels"


class _Records:
    """The records of the drafts, as they may be published; iterable as often as wanted."""

    def __init__(self, drafts: Drafts, wanted: Callable[[Record], bool] = lambda record: True) -> None:
        self._drafts = drafts
        self._wanted = wanted

    def __iter__(self) -> Iterator[Record]:
        for draft in self._drafts:
            if self._wanted(draft.record):
                yield self._drafts.publish(draft.record)


def judge(drafts: Drafts, settings: PrepareSettings, pack: Pack, outside: Outside, *, work: Path, target: Path, progress: Progress) -> dict[str, Any]:
    """Write what was found into `target`, remove the drafts that the settings let go, and return the facts for the card.

    `work` keeps what a model said, so that an interrupted run goes on.
    """
    facts: dict[str, Any] = {}
    if settings.quality.enabled:
        means = means_for(settings.quality, root=outside.root, base=outside.base, guard=pack.guard, quality=pack.quality)
        facts["quality"] = _quality(drafts, settings.quality, means, work=work, target=target, progress=progress)
    labelled = _Records(drafts, lambda record: record.label is not None)
    facts["labels"] = _labels(drafts, labelled, settings, target)
    maximum = outside.maximum_tokens or None
    count = counter_of(outside.base) if outside.base is not None else None
    facts["lengths"] = length_report(_Records(drafts), count, maximum=maximum)
    facts |= _groups(drafts, settings.groups)
    return facts


def _quality(drafts: Drafts, settings: QualitySettings, means: Means, *, work: Path, target: Path, progress: Progress) -> dict[str, Any]:
    work.mkdir(parents=True, exist_ok=True)
    leaving: list[tuple[str, str]] = []

    def watched() -> Iterator[Assessment]:
        for found in assess(_Records(drafts), settings, means, folder=work, progress=progress):
            if settings.drop and found.verdict == "drop":
                leaving.append((found.record_id, f"low_quality:{found.score if found.score is not None else 0:.2f}"))
            yield found

    summary = write_report(watched(), target, settings)
    for record_id, reason in leaving:
        drafts.remove(record_id, _STEP_QUALITY, reason)
    return summary


def _labels(drafts: Drafts, labelled: _Records, settings: PrepareSettings, target: Path) -> dict[str, Any]:
    balances = class_balance(labelled, least=settings.labels.least)
    if not balances:
        return label_facts((), 0, None)
    against = contradictions(labelled)
    examined: tuple[Examined, ...] | None = examine(labelled, settings.labels) if settings.labels.suspects else None
    suspects = [*against, *(suspect for found in examined or () for suspect in found.suspects)]
    if suspects:
        write_review(target / REVIEW_FILE, suspects, labelled)
    if settings.labels.drop:
        for suspect in suspects:
            drafts.remove(suspect.record_id, _STEP_LABELS, f"suspected_label:{suspect.kind}")
    return label_facts(balances, len(against), examined)


def _groups(drafts: Drafts, settings: BiasSettings) -> dict[str, Any]:
    views = group_views(_Records(drafts), settings)
    found = topics(list(_Records(drafts)), settings) if settings.topics else ()
    return bias_facts(views, found, least=settings.least)
