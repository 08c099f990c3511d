"""What is added to the training split after it is decided: variants of its records and new conversations. They stay with their parents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metier.errors import Fault, InputError
from metier.packs.spec import Pack
from metier.prepare.added import questions
from metier.prepare.augment import KIND, Means, effect, rewrite, rules, to_rewrite
from metier.prepare.drafts import Draft, Drafts
from metier.prepare.generate import Knowledge, expected, generate, read_folder
from metier.prepare.outside import Outside
from metier.prepare.settings import PrepareSettings
from metier.prepare.standardize import Lexicon
from metier.prepare.writers import Writer
from metier.prepare.writing import writer_of
from metier.privacy.detect import detector
from metier.privacy.general import Rules
from metier.progress import Progress
from metier.records import Drop, Record, Source

__all__ = ["Grown", "Tools", "grow"]


@dataclass(frozen=True, slots=True)
class Grown:
    """New drafts by the id of their parent, in a fixed order; what was not good enough; and the effect on the set."""

    children: Mapping[str, tuple[Draft, ...]]
    drops: tuple[Drop, ...]
    facts: Mapping[str, Any]
    used: tuple[Source, ...] = ()
    """Where what was added comes from, beside the sources."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What growing uses beside the drafts."""

    pack: Pack
    rules: Rules
    lexicon: Lexicon | None
    outside: Outside

    def identifies(self, text: str) -> bool:
        """Return whether a text holds a personal identifier."""
        return bool(detector(self.rules[0], language=None, validators=self.rules[1]).spans(text))


@dataclass(frozen=True, slots=True)
class _Work:
    """One stretch of the work: its name, the step that stands in the ledger, and how much a model is asked for, None where none is."""

    name: str
    step: str
    total: int | None
    items: Iterator[Record | Drop]


def grow(drafts: Drafts, splits: Mapping[str, str], settings: PrepareSettings, tools: Tools, *, folder: Path, progress: Progress) -> Grown:
    """Return variants of the training drafts and new conversations made from them. Training records are held in memory while a step is on.

    `folder` keeps the finished pieces of what a model writes.
    """
    if not (settings.augment.enabled or settings.generate.enabled):
        return Grown({}, (), {})
    parents = {draft.record.id: draft for draft in drafts if splits[draft.row.record.id] == "train"}
    records = [draft.record for draft in parents.values()]
    writer = writer_of(settings.writer, tools.outside.base, deidentified=settings.deidentify.enabled)
    children: dict[str, list[Draft]] = {}
    drops: list[Drop] = []
    made: list[Record] = []
    written: dict[str, dict[str, Any]] = {}
    for work in _works(records, settings, tools, writer, folder):
        before, refused = len(made), len(drops)
        progress.start(work.name, work.total, "records")
        for item in work.items:
            progress.advance(work.name)
            if isinstance(item, Drop):
                drops.append(item)
                continue
            note = f"{work.step}:{item.metadata[KIND]}" if KIND in item.metadata else f"{work.step}:{writer.name if writer else 'nobody'}"
            parent = parents.get(item.parents[0]) or _beside(next(iter(parents.values())))
            children.setdefault(parent.record.id, []).append(replace(parent, record=item, notes=(*parent.notes, note)))
            made.append(item)
        progress.finish(work.name, f"{len(made) - before} new records")
        if work.total is not None:
            written[work.name] = _yield(len(made) - before, drops[refused:])
            progress.say(_said(work.name, written[work.name]))
    used = tuple(record.source for record in made if record.source is not None)
    facts = {"augment": {**effect(records, [*records, *made]), "made": len(made), "refused": len(drops), "written": written, "writer": _named(writer)}}
    return Grown({name: tuple(found) for name, found in children.items()}, tuple(drops), facts, used)


def _yield(kept: int, drops: Sequence[Drop]) -> dict[str, Any]:
    """Return what came of the texts that a model was asked for."""
    reasons = Counter(dropped.reason.split(":")[0] for dropped in drops)
    return {"asked": kept + len(drops), "kept": kept, "refused": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0])))}


def _said(name: str, found: Mapping[str, Any]) -> str:
    refused = ", ".join(f"{reason} {count}" for reason, count in found["refused"].items())
    return f"{name}: {found['kept']} of {found['asked']} kept" + (f"; refused: {refused}" if refused else "")


def _beside(draft: Draft) -> Draft:
    """Return what a record without a parent in the set stands beside: in the place of a draft, with nothing of what was done to it."""
    return replace(draft, row=replace(draft.row, transforms=(), surrogates=()), notes=())


def _named(writer: Writer | None) -> dict[str, Any] | None:
    return None if writer is None else {"name": writer.name, "digest": writer.digest, "text_leaves_this_machine": writer.leaves}


def _works(records: list[Record], settings: PrepareSettings, tools: Tools, writer: Writer | None, folder: Path) -> Iterator[_Work]:
    if settings.augment.enabled:
        elsewhere = settings.augment.elsewhere
        general = [] if elsewhere is None else [one for one in questions(elsewhere, tools.outside.root) if not tools.identifies(one.messages[0].content)]
        means = Means(tools.pack.phrases, tools.pack.lexicon, tools.lexicon, writer, general, tools.identifies)
        yield _Work("augment", "augment", None, rules(records, settings.augment, means))
        if total := sum(map(len, to_rewrite(records, settings.augment).values())):
            yield _Work("rewrite", "augment", total, rewrite(records, settings.augment, writer, folder=folder, identifies=tools.identifies))
    if settings.generate.enabled:
        if settings.generate.knowledge is None or writer is None:
            remedy = "write generate: {knowledge: FOLDER} and writer: {use: base} or an endpoint"
            raise InputError(Fault("generation needs a knowledge base and a writer", key="prepare.generate", remedy=remedy))
        root, known = tools.outside.root, settings.generate
        knowledge = Knowledge(read_folder(root / settings.generate.knowledge, licence=known.licence, basis=known.basis or "", root=root))
        items = generate(records, knowledge, writer, known, folder=folder, identifies=tools.identifies)
        yield _Work("generate", "generate", expected(records, known), items)
