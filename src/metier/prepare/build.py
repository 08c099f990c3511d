"""From source rows and a pack to a dataset: refine each row, find duplicates among all, compose, split by cluster, write, check, commit."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, Protocol

from metier.artifacts import Artifact
from metier.config import settings_digest
from metier.digest import digest_of
from metier.engines import LOCAL, Engine
from metier.errors import Fault, InputError
from metier.packs.spec import Pack
from metier.prepare.card import data_card
from metier.prepare.check import check_disjoint, prompt_key
from metier.prepare.chunks import Rows, refine_all
from metier.prepare.compose import Composer
from metier.prepare.dedup import Duplicates, find_duplicates
from metier.prepare.deidentify import identifier_rules, year_only
from metier.prepare.drafts import Drafts
from metier.prepare.minhash import implementation
from metier.prepare.refine import Plan, refine
from metier.prepare.settings import PrepareSettings
from metier.prepare.split import Unit, assign
from metier.records import Drop, Record
from metier.shards import SPLITS, write_drops, write_records, write_rows
from metier.store import Workspace, remove_folder

__all__ = ["Origin", "build"]

_RECORDS_A_PART = 50_000
_LINEAGE = {
    "record_id": "string",
    "source_uri": "string",
    "source_digest": "string",
    "source_position": "string",
    "parents": "strings",
    "transforms": "strings",
    "surrogates": "strings",
    "split": "string",
    "subject": "string",
    "cluster": "string",
}


class Origin(Protocol):
    """Where rows come from: lazy, the same every time, with a register of the files (its counts are complete after iteration)."""

    digest: str

    @property
    def register(self) -> list[dict[str, Any]]:
        """One entry a file: uri, sha256, licence, basis, rows, malformed, templates ..."""

    def __iter__(self) -> Iterator[Record | Drop]:
        """Yield records, and drops for what is malformed."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is decided before a dataset is written: the drafts, the split of each row, and the name of each cluster."""

    drafts: Drafts
    splits: Mapping[str, str]
    clusters: Callable[[int], str]


def build(
    origin: Origin,
    pack: Pack,
    settings: PrepareSettings,
    languages: Sequence[str],
    *,
    workspace: Workspace,
    engine: Engine = LOCAL,
) -> Artifact:
    """Build the dataset of a project and return it as an artefact of kind `dataset`.

    Interrupted work goes on from the last finished chunk of rows; the same inputs give the same bytes. Raises InputError where
    nothing is left, a template is missing, or there are too few rows to split; SourceError as reading the origin does.
    """
    progress = workspace.progress
    rows = _refined(origin, pack, settings, languages, workspace, engine)
    duplicates = find_duplicates(rows, settings.dedup, progress)
    drafts = Drafts(rows, duplicates.dropped, year_only if settings.deidentify.enabled else _unchanged)
    drafts.remove_repeated()
    units = _units(drafts, duplicates, settings)
    if not units:
        raise InputError(_nothing_left(drafts))
    plan = _Plan(drafts, assign(units, settings.split), _cluster_ids(rows, duplicates))

    folder = workspace.folder / "dataset"
    remove_folder(folder)
    folder.mkdir(parents=True)
    progress.start("write", len(units), "rows")
    facts = _write(plan, folder)
    progress.finish("write")
    facts |= {
        "rows": len(units),
        "origin": origin.digest,
        "pack": {"name": pack.facts.name, "version": pack.facts.version, "digest": pack.digest},
        "languages": list(languages),
        "register": origin.register,
        "steps": _steps(settings),
        "duplicates": duplicates.counts,
        "disjoint": check_disjoint(folder, by=settings.split.by),
    }
    (folder / "card.md").write_text(data_card(facts, title=pack.facts.name), encoding="utf-8")
    return workspace.commit("dataset", folder, parents=(), facts=facts)


def _unchanged(record: Record) -> Record:
    return record


def _refined(origin: Origin, pack: Pack, settings: PrepareSettings, languages: Sequence[str], workspace: Workspace, engine: Engine) -> Rows:
    key = workspace.store.secret("surrogates")
    identifiers, validators = identifier_rules(pack, settings.deidentify)
    plan = Plan(
        clean=settings.clean,
        deidentify=settings.deidentify,
        identifiers=identifiers,
        validators=validators,
        quality=pack.quality,
        composer=Composer(pack.templates, origin.register),
        languages=tuple(languages),
        domain=pack.facts.name,
        key=key,
    )
    fingerprint = hashlib.sha256(b"chunks\x00" + key).hexdigest()[:16]
    salt = digest_of([settings_digest(settings), pack.digest, list(languages), fingerprint])
    workspace.progress.start("refine", None, "rows")
    rows = refine_all(origin, partial(refine, plan), workspace.folder / "chunks", salt=salt, engine=engine, progress=workspace.progress)
    workspace.progress.finish("refine")
    return rows


def _units(drafts: Drafts, duplicates: Duplicates, settings: PrepareSettings) -> list[Unit]:
    """Return the rows that give at least one draft, as the splitter sees them."""
    units: list[Unit] = []
    for _, group in groupby(drafts, key=lambda draft: draft.number):
        found = list(group)
        row, number = found[0].row.record, found[0].number
        prompts = {prompt_key(draft.record) for draft in found} if "prompt" in settings.split.by else set()
        tasks = Counter(draft.record.task or "" for draft in found)
        units.append(Unit(row.id, _ties(row, duplicates.clusters[number], prompts, settings), tasks, row.time))
    return units


def _ties(record: Record, cluster: int, prompts: set[bytes], settings: PrepareSettings) -> tuple[str, ...]:
    ties = [f"cluster\x00{cluster}", *(f"prompt\x00{prompt.hex()}" for prompt in sorted(prompts))]
    for name, value in (("subject", record.subject), ("group", record.group)):
        if value is not None and name in settings.split.by:
            ties.append(f"{name}\x00{value}")
    return tuple(ties)


def _cluster_ids(rows: Rows, duplicates: Duplicates) -> Callable[[int], str]:
    """Name each cluster by the smallest id among its rows, so that the name does not depend on the rows' order."""
    names: dict[int, str] = {}
    for number, row in rows:
        cluster = duplicates.clusters[number]
        names[cluster] = min(names.get(cluster, row.record.id), row.record.id)
    return lambda number: names[duplicates.clusters[number]]


def _nothing_left(drafts: Drafts) -> Fault:
    reasons = Counter("duplicate" if dropped.step == "dedup" else dropped.reason.split(":")[0] for dropped in drafts.drops())
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "the sources hold no rows"
    remedy = "check `languages`, the `columns` of the sources and what the pack's templates need (metier packs list)"
    return Fault(f"no record is left: {said}", key="prepare", remedy=remedy)


def _write(plan: _Plan, folder: Path) -> dict[str, Any]:
    """Write parts, lineage and drops; return the counts."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("split", "language", "task", "licence")}
    for split in SPLITS:
        wanted = (plan.drafts.publish(draft.record) for draft in plan.drafts if plan.splits[draft.row.record.id] == split)
        _write_parts(folder, split, _counted(wanted, split, counts))
    identifiers: Counter[str] = Counter()
    write_rows(folder / "lineage.parquet", _lineage(plan, identifiers), _LINEAGE)
    reasons: Counter[str] = Counter()
    write_drops(folder / "drops.parquet", _ledger(plan.drafts, reasons))
    return {
        "records": sum(counts["split"].values()),
        "counts": {name: dict(sorted(found.items())) for name, found in counts.items()},
        "drops": dict(sorted(reasons.items())),
        "identifiers": dict(sorted(identifiers.items())),
    }


def _counted(records: Iterator[Record], split: str, counts: Mapping[str, Counter[str]]) -> Iterator[Record]:
    for record in records:
        counts["split"][split] += 1
        counts["language"][record.language or "unknown"] += 1
        counts["task"][record.task or "none"] += 1
        counts["licence"][record.source.licence if record.source else "unknown"] += 1
        yield record


def _write_parts(folder: Path, split: str, records: Iterator[Record]) -> None:
    number = 0
    while (first := next(records, None)) is not None:
        write_records(folder / f"part-{split}-{number:05d}.parquet", chain([first], islice(records, _RECORDS_A_PART - 1)))
        number += 1


def _lineage(plan: _Plan, identifiers: Counter[str]) -> Iterator[dict[str, Any]]:
    last = None
    for draft in plan.drafts:
        if draft.number != last:
            found = (item.removeprefix("deidentify:").split("=") for item in draft.row.transforms if item.startswith("deidentify:"))
            identifiers.update({kind: int(count) for kind, count in found})
            last = draft.number
        record, source = draft.record, draft.record.source
        yield {
            "record_id": record.id,
            "source_uri": source.uri if source else None,
            "source_digest": source.digest if source else None,
            "source_position": source.position if source else None,
            "parents": list(record.parents),
            "transforms": list(draft.transforms),
            "surrogates": list(draft.row.surrogates),
            "split": plan.splits[draft.row.record.id],
            "subject": record.subject,
            "cluster": plan.clusters(draft.number),
        }


def _ledger(drafts: Drafts, reasons: Counter[str]) -> Iterator[Drop]:
    for dropped in drafts.drops():
        reasons[dropped.reason.split(":")[0]] += 1
        yield dropped


def _steps(settings: PrepareSettings) -> list[dict[str, Any]]:
    named = settings.model_dump(mode="json")
    named["dedup"]["minhash"] = implementation()
    return [{"name": name, "settings": values} for name, values in named.items()]
