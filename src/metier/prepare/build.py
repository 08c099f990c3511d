"""From source rows and a pack to a dataset: refine each row, find duplicates among all, compose, split by cluster, write, check, commit."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from metier.artifacts import Artifact
from metier.config import settings_digest
from metier.digest import digest_of
from metier.engines import LOCAL, Engine
from metier.packs.spec import Pack
from metier.prepare.added import entries
from metier.prepare.card import card_files
from metier.prepare.check import check_disjoint
from metier.prepare.chunks import Rows, refine_all
from metier.prepare.clean import Boilerplate, CleanSettings, repeated_lines
from metier.prepare.compose import Composer
from metier.prepare.dedup import Duplicates, find_duplicates
from metier.prepare.deidentify import identifier_rules, year_only
from metier.prepare.divide import Division, Kept, divide, external_rows
from metier.prepare.drafts import Drafts
from metier.prepare.grow import Grown, Tools, grow
from metier.prepare.judge import judge
from metier.prepare.minhash import implementation
from metier.prepare.outside import Outside
from metier.prepare.proof import prove, write_proof
from metier.prepare.refine import Plan, refine
from metier.prepare.settings import PrepareSettings
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
    for note in outside.notes:
        progress.say(f"note: {note}")
    plan = _plan(origin, pack, settings, languages, outside, workspace=workspace)
    rows = _refined(origin, plan, (pack, outside), workspace, engine)
    duplicates = find_duplicates(rows, settings.dedup, progress, folder=workspace.folder / "dedup", engine=engine)
    external = external_rows(rows, settings.split)
    drafts = Drafts(rows, Kept(duplicates.dropped, external), year_only if settings.deidentify.enabled else _unchanged)
    drafts.remove_repeated(external)

    folder = _emptied(workspace.folder / "dataset")
    facts = judge(drafts, settings, pack, outside, work=workspace.folder / "quality", target=folder, progress=progress)
    division = divide(drafts, rows, duplicates, external, settings, pack=pack, outside=outside, progress=progress)
    tools = Tools(pack, plan.rules, plan.lexicon, outside)
    grown = grow(drafts, division.splits, settings, tools, folder=workspace.folder / "generated", progress=progress)
    progress.start("write", division.units, "rows")
    with DatasetWriter(folder, pool=_emptied(workspace.folder / "pool"), settings=settings.mix) as writer:
        _write(writer, drafts, division, grown, duplicates)
    progress.finish("write")
    facts |= {**division.facts, **grown.facts, **writer.facts(), **_said(origin, pack, settings, languages, outside, grown)}
    facts |= {"rows": division.units, "duplicates": duplicates.counts, **_checked(folder, settings)}
    if duplicates.conflicts is not None and duplicates.counts["arbitrations"]:
        shutil.copyfile(duplicates.conflicts, folder / "conflicts.jsonl")
    for name, content in card_files(facts, title=pack.facts.name).items():
        (folder / name).write_bytes(content)
    return workspace.commit("dataset", folder, parents=(), facts=facts)


def _plan(origin: Origin, pack: Pack, settings: PrepareSettings, languages: Sequence[str], outside: Outside, *, workspace: Workspace) -> Plan:
    return Plan(
        settings=settings,
        rules=identifier_rules(pack, settings.deidentify),
        quality=pack.quality,
        composer=Composer(pack.templates, origin.register, settings.compose),
        languages=tuple(languages),
        domain=pack.facts.name,
        root=outside.root,
        key=workspace.store.secret("surrogates"),
        lexicon=lexicon_of(pack, settings.standardize, outside.root) if settings.standardize.enabled else None,
        repeated=_repeated(origin, settings.clean, workspace.progress),
        base=outside.base,
        maximum_tokens=outside.maximum_tokens,
        vault=outside.vault,
    )


def _write(writer: DatasetWriter, drafts: Drafts, division: Division, grown: Grown, duplicates: Duplicates) -> None:
    """Write every draft that is left, what was made of it, and the ledger of what left."""
    for entry in drafts.outcome():
        if isinstance(entry, Drop):
            writer.drop(entry)
            continue
        for draft in (entry, *grown.children.get(entry.record.id, ())):
            writer.add(draft, drafts.publish(draft.record), division.place(draft, int(duplicates.clusters[draft.number])))
    for dropped in grown.drops:
        writer.drop(dropped)


def _said(origin: Origin, pack: Pack, settings: PrepareSettings, languages: Sequence[str], outside: Outside, grown: Grown) -> dict[str, Any]:
    """Return what the dataset was made from and by which settings."""
    return {
        "origin": origin.digest,
        "pack": {"name": pack.facts.name, "version": pack.facts.version, "digest": pack.digest},
        "languages": list(languages),
        "outside": {"files": dict(outside.files), "base": outside.base.digest if outside.base else None, "notes": list(outside.notes)},
        "register": [*origin.register, *entries(grown.used, outside.root, origin.register)],
        "steps": _steps(settings),
    }


def _checked(folder: Path, settings: PrepareSettings) -> dict[str, Any]:
    """Write the proof and return what the files as written share between the splits. Raises MetierError if they share what they may not."""
    proof = prove(folder, dedup=settings.dedup, decontaminate_by=settings.decontaminate, by=settings.split.by)
    write_proof(folder, proof)
    return {"disjoint": check_disjoint(folder, by=settings.split.by), "proof": {"root": proof["root"], "holds": proof["holds"]}}


def _emptied(folder: Path) -> Path:
    remove_folder(folder)
    folder.mkdir(parents=True)
    return folder


def _unchanged(record: Record) -> Record:
    return record


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


def _steps(settings: PrepareSettings) -> list[dict[str, Any]]:
    named = settings.model_dump(mode="json")
    named["dedup"]["minhash"] = implementation()
    return [{"name": name, "settings": values} for name, values in named.items()]
