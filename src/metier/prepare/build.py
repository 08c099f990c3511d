"""From source rows and a pack to a dataset: refine each row, find duplicates among all, compose, split by cluster, write, check, commit."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
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
from metier.prepare.chunks import Refined, Rows, refine_all
from metier.prepare.compose import Composer, conversation_key
from metier.prepare.dedup import Duplicates, find_duplicates
from metier.prepare.deidentify import identifier_rules, year_only
from metier.prepare.minhash import implementation
from metier.prepare.refine import Plan, drop, refine
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


@dataclass(slots=True)
class _Composition:
    """What composing decides for the whole: units for the splitter, repeated conversations, rows that no template fits."""

    units: list[Unit] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    unused: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A dataset about to be written."""

    rows: Rows
    duplicates: Duplicates
    composer: Composer
    composition: _Composition
    splits: Mapping[str, str]
    clusters: Mapping[int, str]
    years_only: bool


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
    composer = Composer(pack.templates, origin.register)
    rows = _refined(origin, pack, settings, languages, workspace, engine)
    duplicates = find_duplicates(rows, settings.dedup, progress)
    composition = _compose_all(rows, duplicates, composer, settings)
    if not composition.units:
        raise InputError(_nothing_left(rows, duplicates, composition))
    splits = assign(composition.units, settings.split)
    draft = _Draft(rows, duplicates, composer, composition, splits, _cluster_ids(rows, duplicates), settings.deidentify.enabled)

    folder = workspace.folder / "dataset"
    remove_folder(folder)
    folder.mkdir(parents=True)
    progress.start("write", len(composition.units), "rows")
    facts = _write(draft, folder)
    progress.finish("write")
    facts |= {
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


def _refined(origin: Origin, pack: Pack, settings: PrepareSettings, languages: Sequence[str], workspace: Workspace, engine: Engine) -> Rows:
    key = workspace.store.secret("surrogates")
    identifiers, validators = identifier_rules(pack, settings.deidentify)
    plan = Plan(
        clean=settings.clean,
        deidentify=settings.deidentify,
        identifiers=identifiers,
        validators=validators,
        quality=pack.quality,
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


def _compose_all(rows: Rows, duplicates: Duplicates, composer: Composer, settings: PrepareSettings) -> _Composition:
    """Compose every row once to learn its tasks and find conversations that two rows give word for word; the smallest id stays."""
    out = _Composition()
    seen: dict[bytes, str] = {}
    made: dict[int, list[tuple[str, str]]] = {}
    prompts: dict[int, set[bytes]] = {}
    for number, row in rows:
        if number in duplicates.dropped:
            continue
        composed = list(composer.compose(row.record))
        if not composed:
            out.unused.add(number)
        for record, _ in composed:
            key = hashlib.sha256(repr(conversation_key(record)).encode()).digest()[:16]
            if key in seen:
                out.repeated.add(max(seen[key], record.id))
            seen[key] = min(seen.get(key, record.id), record.id)
        made[number] = [(record.id, record.task or "") for record, _ in composed]
        prompts[number] = {prompt_key(record) for record, _ in composed} if "prompt" in settings.split.by else set()
    for number, row in rows:
        tasks = Counter(task for record_id, task in made.get(number, ()) if record_id not in out.repeated)
        if tasks:
            out.units.append(Unit(row.record.id, _ties(row.record, duplicates.clusters[number], prompts[number], settings), tasks, row.record.time))
    return out


def _ties(record: Record, cluster: int, prompts: set[bytes], settings: PrepareSettings) -> tuple[str, ...]:
    ties = [f"cluster\x00{cluster}", *(f"prompt\x00{prompt.hex()}" for prompt in sorted(prompts))]
    for name, value in (("subject", record.subject), ("group", record.group)):
        if value is not None and name in settings.split.by:
            ties.append(f"{name}\x00{value}")
    return tuple(ties)


def _cluster_ids(rows: Rows, duplicates: Duplicates) -> dict[int, str]:
    """Name each cluster by the smallest id among its rows, so that the name does not depend on the rows' order."""
    names: dict[int, str] = {}
    for number, row in rows:
        cluster = duplicates.clusters[number]
        names[cluster] = min(names.get(cluster, row.record.id), row.record.id)
    return names


def _nothing_left(rows: Rows, duplicates: Duplicates, composition: _Composition) -> Fault:
    reasons = Counter(entry.reason.split(":")[0] for entry in rows.entries() if isinstance(entry, Drop))
    reasons["duplicate"] += len(duplicates.dropped)
    reasons["no_template_fits"] += len(composition.unused)
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()) if count) or "the sources hold no rows"
    remedy = "check `languages`, the `columns` of the sources and what the pack's templates need (metier packs list)"
    return Fault(f"no record is left: {said}", key="prepare", remedy=remedy)


def _composed(draft: _Draft) -> Iterator[tuple[int, Refined, Record, str]]:
    for number, row in draft.rows:
        if row.record.id in draft.splits and number not in draft.duplicates.dropped:
            for record, how in draft.composer.compose(row.record):
                if record.id not in draft.composition.repeated:
                    yield number, row, _published(record, draft), how


def _published(record: Record, draft: _Draft) -> Record:
    return year_only(record) if draft.years_only else record


def _write(draft: _Draft, folder: Path) -> dict[str, Any]:
    """Write parts, lineage and drops; return the counts."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("split", "language", "task", "licence")}
    for split in SPLITS:
        wanted = (record for _, row, record, _ in _composed(draft) if draft.splits[row.record.id] == split)
        _write_parts(folder, split, _counted(wanted, split, counts))
    identifiers: Counter[str] = Counter()
    write_rows(folder / "lineage.parquet", _lineage(draft, identifiers), _LINEAGE)
    reasons: Counter[str] = Counter()
    write_drops(folder / "drops.parquet", _ledger(draft, reasons))
    return {
        "records": sum(counts["split"].values()),
        "rows": len(draft.composition.units),
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


def _lineage(draft: _Draft, identifiers: Counter[str]) -> Iterator[dict[str, Any]]:
    last = None
    for number, row, record, how in _composed(draft):
        if number != last:
            found = (item.removeprefix("deidentify:").split("=") for item in row.transforms if item.startswith("deidentify:"))
            identifiers.update({kind: int(count) for kind, count in found})
            last = number
        source = record.source
        yield {
            "record_id": record.id,
            "source_uri": source.uri if source else None,
            "source_digest": source.digest if source else None,
            "source_position": source.position if source else None,
            "parents": list(record.parents),
            "transforms": [*row.transforms, how],
            "surrogates": list(row.surrogates),
            "split": draft.splits[row.record.id],
            "subject": record.subject,
            "cluster": draft.clusters[draft.duplicates.clusters[number]],
        }


def _ledger(draft: _Draft, reasons: Counter[str]) -> Iterator[Drop]:
    for dropped in _dropped(draft):
        reasons[dropped.reason.split(":")[0]] += 1
        yield dropped


def _dropped(draft: _Draft) -> Iterator[Drop]:
    number = -1
    for entry in draft.rows.entries():
        if isinstance(entry, Drop):
            yield entry
            continue
        number += 1
        record = _published(entry.record, draft)
        if number in draft.duplicates.dropped:
            yield drop(record, "dedup", draft.duplicates.dropped[number])
        elif number in draft.composition.unused:
            yield drop(record, "compose", "no_template_fits")
        else:
            for composed, _ in draft.composer.compose(entry.record):
                if composed.id in draft.composition.repeated:
                    yield drop(_published(composed, draft), "compose", "repeated_conversation")


def _steps(settings: PrepareSettings) -> list[dict[str, Any]]:
    named = settings.model_dump(mode="json")
    named["dedup"]["minhash"] = implementation()
    return [{"name": name, "settings": values} for name, values in named.items()]
