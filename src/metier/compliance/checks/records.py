"""Checks of the dataset's records: identifiers that are left in the training set, and what the splits share."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import regex
from pydantic import ValidationError

from metier import privacy
from metier.compliance.checks.case import Case, lineage_rows, some
from metier.compliance.measurement import Measurement, proportion_upper
from metier.digest import digest_of
from metier.errors import MetierError
from metier.packs.spec import Identifier
from metier.privacy.detect import detector
from metier.records import Record, Span, strings
from metier.shards import SPLITS, dataset_records

__all__ = ["identifier_scan", "own_surrogate", "split_leak"]

_TASK = "identifiers"
_SURE = 0.5
_CONFIDENCE = 0.95
_NAMED = 20
_MEANING = regex.compile(r"[\p{L}\p{N}]")


def own_surrogate(span: Span, text: str, marks: Sequence[str], key: bytes) -> bool:
    """Return whether a span is a surrogate that Metier wrote: at least half of its letters and digits lie inside marked stretches.

    A detector may draw the border of a surrogate otherwise than that of the value it stands for, so equality would be too strict;
    a short surrogate (an age) inside a longer number excuses nothing.
    """
    known = set(marks)
    lengths = {int(mark.partition(":")[0]) for mark in marks}
    if len(span.text) in lengths and privacy.surrogate_mark(key, span.text) in known:
        return True
    covered: set[int] = set()
    for length in lengths:
        for start in range(max(0, span.start - length + 1), min(span.end, len(text) - length + 1)):
            if privacy.surrogate_mark(key, text[start : start + length]) in known:
                covered.update(range(start, start + length))
    places = [place for place in range(span.start, span.end) if _MEANING.match(text[place])]
    return 2 * sum(place in covered for place in places) >= len(places)


def identifier_scan(case: Case) -> Measurement:
    """Search every record of the training split for identifiers, with the pack's rules and the general ones.

    What Metier wrote itself in the place of an identifier is told by the marks in the lineage and does not count, nor does what the
    policy of the dataset keeps, as far as a policy of Metier's own keeps it too (companies, countries). The bound is that of the share
    of records with a hit, one-sided, 95 %; a hit of a rule with confidence 0.5 and more is a fault in itself. Records of companions, which
    lie in other projects, are not searched: whether those were, a person has to say.
    """
    dataset = case.subject.dataset
    key = case.store.secret("surrogates")
    marks = {row["record_id"]: row["surrogates"] or [] for row in lineage_rows(dataset, ("record_id", "surrogates"))}
    identifiers, validators = privacy.rules_of(case.pack)
    kept = _kept(case, identifiers)
    identifiers = tuple(item for item in identifiers if item.entity not in kept)
    found: Counter[str] = Counter()
    sure: Counter[str] = Counter()
    own = records = 0
    hit: list[str] = []
    case.progress.start(_TASK, dataset.facts["counts"]["split"].get("train"), "records")
    for record in dataset_records(dataset, "train"):
        records += 1
        rules = detector(identifiers, language=record.language, validators=validators)
        texts = [text for text in strings(record) if text]
        left: dict[tuple[str, str], float] = {}
        for text, spans in zip(texts, rules.record(texts), strict=True):
            for span in spans:
                if own_surrogate(span, text, marks.get(record.id, ()), key):
                    own += 1
                else:
                    left[span.type, span.text] = max(span.score, left.get((span.type, span.text), 0.0))
        found.update(kind for kind, _ in left)
        sure.update(kind for (kind, _), score in left.items() if score >= _SURE)
        hit += [record.id] if left else []
        case.progress.advance(_TASK)
    case.progress.finish(_TASK)
    classes = ", ".join(f"{kind} {count}" for kind, count in sorted(sure.items()))
    fault = f"{sum(sure.values())} identifiers are left in {len(hit)} of {records} records: {classes}"
    return Measurement(
        check="identifier_scan",
        value=len(hit) / records if records else None,
        n=records,
        unit="share of training records with an identifier",
        better="lower",
        how="every training record searched with the pack's identifiers and the general ones; upper bound by Clopper and Pearson, one-sided",
        low=0.0,
        high=proportion_upper(len(hit), records, _CONFIDENCE),
        confidence=_CONFIDENCE,
        faults=(fault,) if sure else (),
        undecided=_elsewhere(case),
        inputs={"dataset": dataset.digest, "pack": case.pack.digest, "rules": digest_of([item.model_dump(mode="json") for item in identifiers])},
        details={
            "identifiers": dict(sorted(found.items())),
            "surrogates_seen": own,
            "records": hit[:_NAMED],
            "classes_searched": len(identifiers),
            "kept_by_policy": sorted(kept),
        },
    )


def _elsewhere(case: Case) -> str | None:
    names = [item["project"] for item in case.subject.companions]
    return f"the records of {some(names)}, which were trained along, were not searched here: look at the evidence of these projects" if names else None


def _kept(case: Case, identifiers: Sequence[Identifier]) -> frozenset[str]:
    """Return the entities that the dataset's policy keeps. A user's policy excuses no more than the policies that come with Metier do."""
    settings: Mapping[str, Any] = next((step["settings"] for step in case.subject.dataset.facts["steps"] if step["name"] == "deidentify"), {})
    said = settings.get("policy")
    try:
        policy = privacy.load_policy(said if isinstance(said, str) else privacy.Policy.model_validate_json(json.dumps(said)), root=case.store.root.parent)
    except (MetierError, ValidationError):
        return frozenset()
    return frozenset(item.entity for item in identifiers if policy.keeps(item) and any(known.keeps(item) for known in privacy.policies().values()))


def _keys(record: Record, cluster: str | None, by: Sequence[str]) -> Iterator[tuple[str, str]]:
    last = max((place for place, message in enumerate(record.messages) if message.learn), default=len(record.messages))
    yield "record", record.id
    yield "text", digest_of([[message.role, message.content] for message in record.messages] or record.text)
    if "prompt" in by:
        yield "prompt", digest_of([[message.role, message.content] for message in record.messages[:last]] or record.text)
    for name, value in (("subject", record.subject), ("group", record.group)):
        if value is not None and name in by:
            yield name, value
    if cluster is not None:
        yield "cluster", cluster


def split_leak(case: Case) -> Measurement:
    """Count what stands in more than one split: records, texts, near-duplicate clusters, and the keys that hold records together.

    Recomputed from the files as written, not taken from what preparation said of itself.
    """
    dataset = case.subject.dataset
    steps = {step["name"]: step["settings"] for step in dataset.facts["steps"]}
    by = tuple(steps["split"]["by"])
    rows = {row["record_id"]: row for row in lineage_rows(dataset, ("record_id", "cluster", "split"))}
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    counts: Counter[str] = Counter()
    misplaced = 0
    for place, split in enumerate(SPLITS):
        for record in dataset_records(dataset, split):
            counts[split] += 1
            row = rows.get(record.id, {})
            misplaced += row.get("split") != split
            for kind, key in _keys(record, row.get("cluster"), by):
                seen[kind][key] = seen[kind].get(key, 0) | 1 << place
    shared = {kind: sum(bits.bit_count() > 1 for bits in keys.values()) for kind, keys in sorted(seen.items())}
    faults = [f"{count} {kind}s stand in more than one split" for kind, count in shared.items() if count]
    faults += [f"{misplaced} records stand in another split than the lineage says"] if misplaced else []
    if dict(counts) != {split: count for split, count in dataset.facts["counts"]["split"].items() if count}:
        faults.append("the splits do not have the sizes that the manifest gives")
    held = counts["test"] + counts["validation"]
    return Measurement(
        check="split_leak",
        value=float(sum(shared.values())),
        n=sum(counts.values()),
        unit="keys that stand in more than one split",
        better="lower",
        how=f"all records read again; compared: {', '.join(shared)}",
        faults=tuple(faults),
        undecided=None if held else "no record is held out: the dataset has neither a test nor a validation split",
        inputs={"dataset": dataset.digest},
        details={"shared": shared, "splits": dict(counts), "by": list(by)},
    )
