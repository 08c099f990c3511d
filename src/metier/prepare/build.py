"""From source rows and a pack to a dataset: refine each row, find duplicates among all, compose, split by cluster, write, check, commit."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
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
from metier.prepare.write import DatasetWriter
from metier.records import Drop, Record
from metier.store import Workspace, remove_folder

__all__ = ["Origin", "build"]


class Origin(Protocol):
    """Where rows come from: lazy, the same every time, with a register of the files (its counts are complete after iteration)."""

    digest: str

    @property
    def register(self) -> list[dict[str, Any]]:
        """One entry a file: uri, sha256, licence, basis, rows, malformed, templates ..."""

    def __iter__(self) -> Iterator[Record | Drop]:
        """Yield records, and drops for what is malformed."""


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
    duplicates = find_duplicates(rows, settings.dedup, progress, folder=workspace.folder / "dedup", engine=engine)
    drafts = Drafts(rows, duplicates.dropped, year_only if settings.deidentify.enabled else _unchanged)
    drafts.remove_repeated()
    units, names = _decided(drafts, duplicates, settings)
    if not units:
        raise InputError(_nothing_left(drafts))
    splits = assign(units, settings.split)

    folder = workspace.folder / "dataset"
    remove_folder(folder)
    folder.mkdir(parents=True)
    progress.start("write", len(units), "rows")
    with DatasetWriter(folder) as writer:
        for entry in drafts.outcome():
            if isinstance(entry, Drop):
                writer.drop(entry)
            else:
                writer.add(entry, drafts.publish(entry.record), split=splits[entry.row.record.id], cluster=names[duplicates.clusters[entry.number]])
    facts = writer.facts()
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
        composer=Composer(pack.templates, origin.register, settings.compose),
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


def _decided(drafts: Drafts, duplicates: Duplicates, settings: PrepareSettings) -> tuple[list[Unit], dict[int, str]]:
    """Return the rows that give at least one draft, as the splitter sees them, and a name for each of their clusters.

    A cluster is named by the smallest id among its rows, so that the name does not depend on the rows' order.
    """
    units: list[Unit] = []
    names: dict[int, str] = {}
    for number, group in groupby(drafts, key=lambda draft: draft.number):
        found = list(group)
        row, cluster = found[0].row.record, duplicates.clusters[number]
        prompts = {prompt_key(draft.record) for draft in found} if "prompt" in settings.split.by else set()
        tasks = Counter(draft.record.task or "" for draft in found)
        units.append(Unit(row.id, _ties(row, cluster, prompts, settings), tasks, row.time))
        names[cluster] = min(names.get(cluster, row.id), row.id)
    return units, names


def _ties(record: Record, cluster: int, prompts: set[bytes], settings: PrepareSettings) -> tuple[str, ...]:
    ties = [f"cluster\x00{cluster}", *(f"prompt\x00{prompt.hex()}" for prompt in sorted(prompts))]
    for name, value in (("subject", record.subject), ("group", record.group)):
        if value is not None and name in settings.split.by:
            ties.append(f"{name}\x00{value}")
    return tuple(ties)


def _nothing_left(drafts: Drafts) -> Fault:
    reasons = Counter("duplicate" if dropped.step == "dedup" else dropped.reason.split(":")[0] for dropped in drafts.outcome() if isinstance(dropped, Drop))
    said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "the sources hold no rows"
    remedy = "check `languages`, the `columns` of the sources and what the pack's templates need (metier packs list)"
    return Fault(f"no record is left: {said}", key="prepare", remedy=remedy)


def _steps(settings: PrepareSettings) -> list[dict[str, Any]]:
    named = settings.model_dump(mode="json")
    named["dedup"]["minhash"] = implementation()
    return [{"name": name, "settings": values} for name, values in named.items()]
