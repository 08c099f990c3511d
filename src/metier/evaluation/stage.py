"""The evaluation stage: base and tuned model answer the same items; what they score, with intervals, becomes an artefact."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metier.artifacts import Artifact
from metier.digest import digest_of
from metier.evaluation.ask import Side, ask
from metier.evaluation.compare import Compared, chance_facts, compare_task, format_split, retention_facts, settle
from metier.evaluation.items import Answer, Item, Task, conversation
from metier.evaluation.report import training_points, write_report
from metier.evaluation.results import examples, lengths, results_document, write_samples
from metier.evaluation.scorers import Tools
from metier.evaluation.settings import EvaluationSettings
from metier.evaluation.task import build_tasks
from metier.evaluation.text import language_of
from metier.kept import holding
from metier.models.interface import LanguageModel
from metier.packs.spec import Pack
from metier.progress import Progress
from metier.store import Workspace, remove_folder, write_atomically

__all__ = ["evaluate"]

_QUESTION = "metier/question"


def evaluate(
    dataset: Artifact,
    adapter: Artifact,
    model: LanguageModel,
    pack: Pack,
    settings: EvaluationSettings,
    languages: Sequence[str],
    *,
    workspace: Workspace,
    run: Artifact | None = None,
) -> Artifact:
    """Compare the model with its adapter on and off, on the same items, and return the evaluation artefact.

    `model` is open with the adapter attached. Answers are kept in the workspace as they come, so that an interrupted
    evaluation asks each item once. `run` is the training run, for the report. The artefact holds `results.json` (lm-eval's
    shape), `samples/<task>.jsonl` and `report.html`; its facts are the summary table.
    Raises InputError for tasks that cannot be read or asked, ModelError for a model that gives no numbers.
    """
    tasks, notes = build_tasks(dataset, pack, settings, languages, project=workspace.store.root.parent)
    for note in notes:
        workspace.progress.say(note)
    asked = [*tasks, _question(settings)] if settings.question else tasks
    with _of_base(workspace, adapter) as shared:
        answers = _ask_both(model, asked, {"base": shared, "tuned": workspace.folder}, settings.batch, workspace.progress)
    tools = Tools(pack)
    count = sum(len(task.metrics) for task in tasks)
    compared = [compare_task(task, answers[task.name], tools, settings, count) for task in tasks]
    facts = {"pack": {"name": pack.facts.name, "version": pack.facts.version}, "languages": list(languages), **_facts(compared, answers, settings, notes)}

    folder = workspace.folder / "evaluation"
    remove_folder(folder)
    (folder / "samples").mkdir(parents=True)
    for one in compared:
        write_samples(folder / "samples", one)
    write_atomically(folder / "results.json", json.dumps(results_document(compared, facts, settings), ensure_ascii=False, indent=1, sort_keys=True).encode())
    page = write_report(
        facts,
        dataset.facts,
        {} if run is None else run.facts,
        training_points(run),
        settings=settings.model_dump(mode="json"),
        examples=examples(compared, settings.examples),
        lengths=lengths(compared),
    )
    write_atomically(folder / "report.html", page.encode())
    return workspace.commit("evaluation", folder, parents=(dataset.digest, adapter.digest), facts=facts)


def _question(settings: EvaluationSettings) -> Task:
    text = settings.question or ""
    item = Item("question", language_of(text), conversation(text), "")
    return Task(_QUESTION, "generate", (item,), (), max_new_tokens=settings.max_new_tokens)


@contextmanager
def _of_base(workspace: Workspace, adapter: Artifact) -> Iterator[Path]:
    """Yield where the base model's answers are kept: beside all evaluations on it by the same code and packages, so that it is asked once for all experts."""
    if not workspace.code:
        yield workspace.folder
        return
    made_with = {name: version(name) for name in ("torch", "transformers")}
    key = digest_of({"code": workspace.code, "base": adapter.facts["base"]["digest"], "template": adapter.facts["template"], "packages": made_with})
    folder = workspace.kept("asked") / key[:32]
    with holding(folder):
        folder.mkdir(exist_ok=True)
        yield folder


def _ask_both(
    model: LanguageModel, tasks: Sequence[Task], folders: Mapping[Side, Path], batch: int, progress: Progress
) -> dict[str, dict[Side, dict[str, Answer]]]:
    answers: dict[str, dict[Side, dict[str, Answer]]] = {task.name: {} for task in tasks}
    with model.without_adapter():
        for task in tasks:
            answers[task.name]["base"] = ask(model, task, "base", folders["base"], batch=batch, progress=progress)
    for task in tasks:
        answers[task.name]["tuned"] = ask(model, task, "tuned", folders["tuned"], batch=batch, progress=progress)
    return answers


def _facts(
    compared: Sequence[Compared], answers: Mapping[str, Mapping[Side, Mapping[str, Answer]]], settings: EvaluationSettings, notes: Sequence[str]
) -> dict[str, Any]:
    table = settle(compared, settings.confidence)
    splits = {one.task.name: format_split(one) for one in compared}
    chances = {one.task.name: chance_facts(one, table[one.task.name]) for one in compared}
    question = None
    if settings.question:
        given = answers[_QUESTION]
        question = {"text": settings.question, **{side: given[side]["question"].text for side in ("base", "tuned")}}
    return {
        "tasks": table,
        "format": {name: split for name, split in splits.items() if split is not None},
        "chance": {name: chance for name, chance in chances.items() if chance is not None},
        "retention": retention_facts(compared, settings.confidence),
        "question": question,
        "items": {one.task.name: {"asked": len(one.task.items), "available": one.task.available, "left_out": dict(one.task.left_out)} for one in compared},
        "confidence": settings.confidence,
        "notes": list(notes),
    }
