"""The evaluation of a model with a head: test records are labelled; every answer is kept, every score has an interval, every class its row."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metier.artifacts import Artifact
from metier.errors import Fault, InputError
from metier.evaluation.ask import Side as Name
from metier.evaluation.compare import Compared, compare_graded, settle
from metier.evaluation.corpus import record_language
from metier.evaluation.items import Task
from metier.evaluation.labels.counts import table
from metier.evaluation.labels.grade import Side, answered, graded_items, item_of, measures_of, metrics_of, prior_answer, tables_of
from metier.evaluation.report import training_points, write_report
from metier.evaluation.results import examples, results_document, write_samples
from metier.evaluation.settings import EvaluationSettings
from metier.models.answers import answer_of, pair_of, text_of
from metier.models.labels import Labelling
from metier.packs.spec import Pack
from metier.records import Record
from metier.shards import dataset_records
from metier.store import Workspace, remove_folder, write_atomically

if TYPE_CHECKING:
    from metier.models import Labeller

__all__ = ["evaluate_labels"]

_SHOWN = 5


def evaluate_labels(
    dataset: Artifact, adapter: Artifact, model: Labeller, pack: Pack, settings: EvaluationSettings, *, workspace: Workspace, run: Artifact | None = None
) -> Artifact:
    """Label the test split and compare with what the untuned base can say, which has no head for the task: the most frequent training answer.

    Returns the evaluation artefact with the files and facts of `metier.evaluation.evaluate`; `tables` among the facts has precision,
    recall, F1 and support of every class or type, of spans both strictly and by word. Raises InputError if no test record has an answer.
    """
    labelling = model.labelling
    records, left = _asked(dataset, labelling, settings)
    workspace.progress.start(labelling.task, len(records), "records")
    given = model.predict([text_of(record) for record in records], [pair_of(record) for record in records], progress=workspace.progress, task=labelling.task)
    workspace.progress.finish(labelling.task)
    gold = [answer_of(record, labelling.task) or () for record in records]
    sides: dict[Name, Side] = {
        "base": Side(records, [prior_answer(labelling)] * len(records), labelling, gold),
        "tuned": Side(records, given, labelling, gold),
    }
    one = _compared(sides, settings, available=len(records) + left["beyond the limit"], left=left)
    notes = _notes(sides["tuned"], settings)
    for note in notes:
        workspace.progress.say(note)
    facts = _facts(one, sides["tuned"], pack, settings, notes)
    folder = workspace.folder / "evaluation"
    remove_folder(folder)
    (folder / "samples").mkdir(parents=True)
    write_samples(folder / "samples", one)
    document = results_document([one], facts, settings) | {"tables": facts["tables"]}
    write_atomically(folder / "results.json", json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True).encode())
    shown = examples([one], settings.examples)
    page = write_report(facts, dataset.facts, {} if run is None else run.facts, training_points(run), settings=settings.model_dump(mode="json"), examples=shown)
    write_atomically(folder / "report.html", page.encode())
    return workspace.commit("evaluation", folder, parents=(dataset.digest, adapter.digest), facts=facts)


def _asked(dataset: Artifact, labelling: Labelling, settings: EvaluationSettings) -> tuple[list[Record], Counter[str]]:
    """Return the test records that say what is right, at most `limit` a language by their ids (which are digests), and why others are not asked."""
    left: Counter[str] = Counter()
    by_language: dict[str, list[Record]] = {}
    for record in sorted(dataset_records(dataset, "test"), key=lambda item: item.id):
        if not answered(record, labelling):
            left["no right answer in the record"] += 1
        elif len(found := by_language.setdefault(record_language(record), [])) < settings.limit:
            found.append(record)
        else:
            left["beyond the limit"] += 1
    records = [record for language in sorted(by_language) for record in by_language[language]]
    if not records:
        remedy = "give the dataset a test split with labels: prepare.split.test"
        raise InputError(Fault("nothing to evaluate: no record of the test split says what the right answer is", key="evaluation", remedy=remedy))
    return records, left


def _compared(sides: Mapping[Name, Side], settings: EvaluationSettings, *, available: int, left: Mapping[str, int]) -> Compared:
    side = sides["tuned"]
    items = tuple(item_of(record, side.labelling) for record in side.records)
    reasons = {reason: count for reason, count in sorted(left.items()) if reason != "beyond the limit"}
    task = Task(
        side.labelling.task,
        "label",
        items,
        metrics_of(side.labelling),
        available=available,
        left_out=reasons,
        config={"task": side.labelling.task, "labels": list(side.labelling.labels)},
    )
    graded = {name: graded_items(one, items) for name, one in sides.items()}
    found = {name: measures_of(one) for name, one in sides.items()}
    measures: dict[str, dict[Name, Any]] = {metric.metric: {name: found[name][metric.metric] for name in sides} for metric in task.metrics}
    # A metric that says nothing of these data (ranks of questions with one candidate, say) is left out rather than shown without a number.
    defined = {name: pair for name, pair in measures.items() if not math.isnan(pair["tuned"].point())}
    return compare_graded(task, graded, defined or measures, settings, len(defined or measures))


def _notes(side: Side, settings: EvaluationSettings) -> list[str]:
    labelling = side.labelling
    prior = {
        "tagging": "no span anywhere",
        "regression": f"the {'stated centre' if labelling.stated else 'mean of the training split'}, {labelling.centre:.4g}",
        "pair": f"the {'middle of the scale' if labelling.stated else 'mean of the training split'}, {labelling.centre:.4g}",
    }.get(labelling.task, f"{', '.join(labelling.prior) or 'no label'} every time")
    what = "what was stated before a private training" if labelling.stated else "what is most frequent in the training split"
    notes = [f"the untuned base model has no head for this task; its side says {what}: {prior}"]
    if unread := sum(not item.read for item in side.given):
        notes.append(f"{unread} test records are longer than the {labelling.maximum_tokens} tokens that the model was trained for; they count as wrong")
    if labelling.labels:
        names = {label for gold in side.gold for label in gold} - set(labelling.labels)
        if names:
            count = sum(bool(names & set(gold)) for gold in side.gold)
            shown = ", ".join(sorted(names)[:_SHOWN])
            where = "was not stated" if labelling.stated else "the training split has not"
            notes.append(f"{count} test records have a label that {where} ({shown}); it cannot be said and counts as missed")
    asked = [name for name in settings.tasks if name not in ("held-out", "pack", "retention")]
    if asked:
        notes.append(f"not asked, for they want answers in words: {', '.join(asked)}")
    return notes


def _facts(one: Compared, side: Side, pack: Pack, settings: EvaluationSettings, notes: Sequence[str]) -> dict[str, Any]:
    tables = {level: table(counts, one.weights, settings.confidence) for level, counts in tables_of(side).items()}
    return {
        "pack": {"name": pack.facts.name, "version": pack.facts.version},
        "languages": sorted({item.language for item in one.task.items}),
        "tasks": settle([one], settings.confidence),
        "tables": tables,
        "format": {},
        "chance": {},
        "retention": None,
        "question": None,
        "items": {one.task.name: {"asked": len(one.task.items), "available": one.task.available, "left_out": dict(one.task.left_out)}},
        "confidence": settings.confidence,
        "notes": list(notes),
    }
