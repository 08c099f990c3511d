"""From source rows and a pack to a dataset: refine each row, find duplicates among all, compose, split by cluster, write, check, commit."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from metier.artifacts import Artifact
from metier.config import settings_digest
from metier.digest import digest_of
from metier.engines import LOCAL, Engine
from metier.errors import Fault, InputError
from metier.packs.spec import Pack
from metier.prepare.card import card_files
from metier.prepare.check import check_disjoint, prompt_key
from metier.prepare.chunks import Rows, refine_all
from metier.prepare.clean import Boilerplate, CleanSettings, repeated_lines
from metier.prepare.compose import Composer
from metier.prepare.dedup import Duplicates, find_duplicates
from metier.prepare.deidentify import identifier_rules, year_only
from metier.prepare.drafts import Drafts
from metier.prepare.grow import grow
from metier.prepare.judge import judge
from metier.prepare.minhash import implementation
from metier.prepare.outside import Outside
from metier.prepare.refine import Plan, refine
from metier.prepare.settings import PrepareSettings
from metier.prepare.split import Unit, assign
from metier.prepare.standardize import lexicon_of
from metier.prepare.write import DatasetWriter
from metier.progress import Progress
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
    outside: Outside | None = None,
    *,
    workspace: Workspace,
    engine: Engine = LOCAL,
) -> Artifact:
    """Build the dataset of a project and return it as an artefact of kind `dataset`.

    Interrupted work goes on from the last finished chunk of rows; the same inputs give the same bytes. `outside` is what the settings
    ask for beside rows and pack (see `look_outside`). Raises InputError where nothing is left, a template is missing, or there are too
    few rows to split; SourceError as reading the origin does.
    """
    outside, progress = outside or Outside(), workspace.progress
    rules = identifier_rules(pack, settings.deidentify)
    lexicon = lexicon_of(pack, settings.standardize, outside.root) if settings.standardize.enabled else None
    plan = Plan(
        settings=settings,
        rules=rules,
        quality=pack.quality,
        composer=Composer(pack.templates, origin.register, settings.compose),
        languages=tuple(languages),
        domain=pack.facts.name,
        root=outside.root,
        key=workspace.store.secret("surrogates"),
        lexicon=lexicon,
        repeated=_repeated(origin, settings.clean, progress),
        base=outside.base,
        maximum_tokens=outside.maximum_tokens,
    )
    rows = _refined(origin, plan, (pack, outside), workspace, engine)
    duplicates = find_duplicates(rows, settings.dedup, progress, folder=workspace.folder / "dedup", engine=engine)
    drafts = Drafts(rows, duplicates.dropped, year_only if settings.deidentify.enabled else _unchanged)
    drafts.remove_repeated()

    folder = workspace.folder / "dataset"
    remove_folder(folder)
    folder.mkdir(parents=True)
    facts = judge(drafts, settings, pack, outside, work=workspace.folder / "quality", target=folder, progress=progress)
    units, names = _decided(drafts, duplicates, settings)
    if not units:
        raise InputError(_nothing_left(drafts))
    splits = assign(units, settings.split)
    grown = grow(drafts, splits, settings, pack, rules, lexicon=lexicon, progress=progress)

    progress.start("write", len(units), "rows")
    with _writer(folder, workspace, settings) as writer:
        for entry in drafts.outcome():
            if isinstance(entry, Drop):
                writer.drop(entry)
                continue
            for draft in (entry, *grown.children.get(entry.record.id, ())):
                writer.add(draft, drafts.publish(draft.record), split=splits[draft.row.record.id], cluster=names[int(duplicates.clusters[draft.number])])
        for dropped in grown.drops:
            writer.drop(dropped)
    progress.finish("write")
    facts |= {
        **grown.facts,
        **writer.facts(),
        "rows": len(units),
        "origin": origin.digest,
        "pack": {"name": pack.facts.name, "version": pack.facts.version, "digest": pack.digest},
        "languages": list(languages),
        "outside": {"files": dict(outside.files), "base": outside.base.digest if outside.base else None, "notes": list(outside.notes)},
        "register": origin.register,
        "steps": _steps(settings),
        "duplicates": duplicates.counts,
        "disjoint": check_disjoint(folder, by=settings.split.by),
    }
    if duplicates.conflicts is not None and duplicates.counts["arbitrations"]:
        shutil.copyfile(duplicates.conflicts, folder / "conflicts.jsonl")
    for name, content in card_files(facts, title=pack.facts.name).items():
        (folder / name).write_bytes(content)
    return workspace.commit("dataset", folder, parents=(), facts=facts)


def _unchanged(record: Record) -> Record:
    return record


def _writer(folder: Path, workspace: Workspace, settings: PrepareSettings) -> DatasetWriter:
    pool = workspace.folder / "pool"
    remove_folder(pool)
    pool.mkdir(parents=True)
    return DatasetWriter(folder, pool=pool, settings=settings.mix)


def _repeated(origin: Origin, settings: CleanSettings, progress: Progress) -> Boilerplate | None:
    """Return the lines that each source repeats, where the settings ask for it: the rows are read once more."""
    if settings.repeated is None:
        return None
    progress.start("boilerplate", None, "rows")
    found = repeated_lines((item for item in origin if isinstance(item, Record)), settings)
    progress.finish("boilerplate")
    return found


def _refined(origin: Origin, plan: Plan, known: tuple[Pack, Outside], workspace: Workspace, engine: Engine) -> Rows:
    pack, outside = known
    fingerprint = hashlib.sha256(b"chunks\x00" + plan.key).hexdigest()[:16]
    salt = digest_of([settings_digest(plan.settings), pack.digest, list(plan.languages), outside.digest, fingerprint])
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
        row, cluster = found[0].row.record, int(duplicates.clusters[number])
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
