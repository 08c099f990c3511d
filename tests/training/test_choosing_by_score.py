"""Trainings and sweeps that choose by what evaluation tasks measure on validation records: real models, tasks that choose and tasks that write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.bilingual import WORDS, add, commit_dataset, feel, make_pack
from metier.artifacts import Artifact
from metier.config import Document
from metier.errors import ConfigError, InputError
from metier.evaluation import EvaluationSettings, ValidationScore, validation_score
from metier.jackknife import jackknifed, mean_of
from metier.models import Base, LocalModel
from metier.progress import SILENT
from metier.store import Store
from metier.training import SweepSettings, TrainingSettings, train
from metier.training.scoring import f1_of
from metier.training.sweep import local_workers, read_space, search
from metier.training.sweep.quantity import quantity_of
from metier.training.sweep.space import Choices, Space
from training.test_sweep_run import Here, told

TRAIN = [make(100 + number, language) for make in (feel, add) for language in WORDS for number in range(12)]
CHECKED = [make(number, language) for make in (feel, add) for language in WORDS for number in range(6)]


def settings(**more: Any) -> TrainingSettings:
    given = {"by": "score", "tasks": ["feel"], "times": 3, "patience": 9, "limit": 6} | more.pop("validation", {})
    chosen = {"epochs": 3, "learning_rate": 5e-3, "precision": "float32", "batch": {"row_tokens": 256, "maximum_tokens": 256}, "checkpoint": {"steps": 1}}
    return TrainingSettings.model_validate_json(json.dumps(chosen | {"validation": given} | more))


def scoring(folder: Path, training: TrainingSettings, **evaluated: Any) -> ValidationScore:
    given = training.validation
    asked = EvaluationSettings(**evaluated)
    return validation_score(make_pack(folder), asked, ("zh", "en"), tasks=given.tasks, metric=given.metric, limit=given.limit, project=folder)


@pytest.fixture
def dataset(store: Store) -> Artifact:
    """Without a test split: nothing of it can be asked for."""
    return commit_dataset(store, {"train": TRAIN, "validation": CHECKED})


def _checks(run: Artifact) -> list[dict[str, Any]]:
    return [row for row in map(json.loads, run.file("metrics.jsonl").read_text().splitlines()) if "validation_score" in row]


@pytest.mark.parametrize(
    ("method", "tasks", "metric", "adaptation"),
    [
        ("lora", ["feel"], None, {"rank": 8}),
        ("lora", ["feel"], "brier_score", {"rank": 8}),
        ("dora", ["add"], "chrf", {"rank": 4}),
        ("prefix", ["feel", "add"], None, {"tokens": 4}),
        ("full", ["add", "feel"], None, {}),
    ],
)
def test_what_is_kept_is_best_by_the_tasks_and_scores_the_same_when_it_is_opened_again(
    method: str, tasks: list[str], metric: str | None, adaptation: dict[str, Any], dataset: Artifact, base: Base, store: Store, tmp_path: Path
) -> None:
    training = settings(method=method, adaptation=adaptation, learning_rate=1e-3 if method == "full" else 5e-3, validation={"tasks": tasks, "metric": metric})
    asked = scoring(tmp_path, training)
    run, adapter = train(dataset, base, training, scoring=asked, workspace=store.workspace("one"))
    checks = _checks(run)
    assert len(checks) == 3
    best = (min if metric == "brier_score" else max)(row["validation_score"] for row in checks)
    first = next(row for row in checks if row["validation_score"] == best)
    assert (run.facts["best_step"], run.facts["validation_score"], run.facts["validation_loss"]) == (first["step"], best, first["validation_loss"])
    assert asked.higher_is_better is (metric != "brier_score")
    opened = LocalModel.open(base, adapter.path, dtype=torch.float32)
    scored = asked.open(dataset, opened.chat, device="cpu", progress=SILENT)(opened.model)
    assert scored.value == pytest.approx(best, abs=1e-5)
    assert len(scored.items) == 12 * len(tasks), "six of each language and task"


def test_an_interrupted_training_by_score_comes_to_the_same(dataset: Artifact, base: Base, store: Store, tmp_path: Path) -> None:
    training = settings()
    asked = scoring(tmp_path, training)
    whole, _ = train(dataset, base, training, scoring=asked, workspace=store.workspace("whole"))
    with pytest.raises(RuntimeError):
        train(dataset, base, training, scoring=asked, workspace=store.workspace("cut"), judge=_stop)
    again, _ = train(dataset, base, training, scoring=asked, workspace=store.workspace("cut"))
    assert [row["validation_score"] for row in _checks(again)] == [row["validation_score"] for row in _checks(whole)]


def _stop(step: int, *_: Any) -> bool:
    raise RuntimeError


def test_tasks_that_would_leak_or_cannot_be_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: items.jsonl\noutput_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
        "metric_list: [{metric: exact_match}]\nmetadata: {version: 1}\n"
    )
    (tmp_path / "late.yaml").write_text(
        "task: late\ntest_split: validation\noutput_type: generate_until\nmetric_list: [{metric: chrf}]\nmetadata: {version: 1}\n"
    )
    (tmp_path / "cold.yaml").write_text(
        "task: cold\nrecords: feel\noutput_type: multiple_choice\nmetric_list: [{metric: brier_score}]\nmetadata: {version: 1}\n"
    )
    with pytest.raises(InputError) as caught:
        scoring(tmp_path, settings(validation={"tasks": ["own.yaml", "feel", "held-out"], "metric": "acc"}), tasks=("pack", "late.yaml"))
    said = str(caught.value)
    assert "own has items of its own, and a release is decided on them" in said
    assert "own has no metric 'acc'" in said
    assert "'held-out' is no single task" in said
    assert "the evaluation asks late of the validation split" in said
    with pytest.raises(InputError, match="of others less"):
        scoring(tmp_path, settings(validation={"tasks": ["feel", "cold.yaml"]}))
    with pytest.raises(InputError, match="no task 'fel'"):
        scoring(tmp_path, settings(validation={"tasks": ["fel"]}))


def test_a_task_without_validation_records_is_said_before_a_step_is_made(base: Base, store: Store, tmp_path: Path) -> None:
    few = commit_dataset(store, {"train": TRAIN, "validation": [add(1, "en")]}, "few")
    training = settings()
    with pytest.raises(InputError, match="no validation record can be asked for feel"):
        train(few, base, training, scoring=scoring(tmp_path, training), workspace=store.workspace("none"))
    with pytest.raises(InputError, match="what asks them was not given"):
        train(few, base, training, workspace=store.workspace("none"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"validation": {"by": "score"}}, "nothing says what is asked"),
        ({"validation": {"tasks": ["a"]}}, "nothing reads validation.tasks: validation.by is loss"),
        ({"validation": {"by": "score", "tasks": ["a"]}, "task": "tagging"}, "tagging is scored by F1"),
        ({"validation": {"by": "score", "tasks": ["a", "a"]}}, "stands twice"),
        ({"validation": {"by": "score", "tasks": ["a"], "times": 0}}, "validation.times is 0"),
        ({"validation": {"by": "score"}, "task": "pair"}, "pair has none of them"),
        ({"validation": {"by": "score", "tasks": ["a"]}, "adaptation": {"joint": {"projects": ["x"]}}}, "a score is one project's"),
    ],
)
def test_what_no_score_would_read_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        TrainingSettings.model_validate_json(json.dumps(given))


def test_the_jackknife_of_a_mean_has_the_items_own_values_and_its_customary_error() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    found = jackknifed(lambda weights: weights @ values / weights.sum(axis=1), 5)
    assert found.items == pytest.approx(tuple(values))
    assert found.value == pytest.approx(0.6)
    other = jackknifed(lambda weights: weights[:, :3] @ values[:3] / weights[:, :3].sum(axis=1), 3)
    both = mean_of([found, other])
    assert both.value == pytest.approx((0.6 + 2 / 3) / 2)
    error = stdev(both.items) / math.sqrt(8)
    apart = math.sqrt((stdev(values) ** 2 / 5 + stdev(values[:3]) ** 2 / 3) / 4)
    assert error == pytest.approx(apart), "the errors of two means over different items"


def test_the_error_of_f1_is_near_that_of_many_samples() -> None:
    random = np.random.default_rng(0)

    def drawn(count: int) -> tuple[list[set[str]], list[set[str]]]:
        true = [{"a"} if random.random() < 0.5 else {"b"} for _ in range(count)]
        return true, [item if random.random() < 0.8 else {"a", "b"} - item for item in true]

    scores = [f1_of(*drawn(100), mean=True).value for _ in range(300)]
    errors = [stdev(f1_of(*drawn(100), mean=True).items) / 10 for _ in range(20)]
    assert fmean(errors) == pytest.approx(stdev(scores), rel=0.15)


def _sweep(dataset: Artifact, base: Base, folder: Path, training: TrainingSettings, asked: ValidationScore, workers: Here | None = None, **wanted: Any) -> Any:
    sweep = SweepSettings(**{"trials": 4, "prune": "none", **wanted})
    space = Space(training, (Choices("adaptation.rank", (1, 8)), Choices("learning_rate", (1e-6, 1e-2))), quantity_of(training, sweep, asked))
    made = (workers or Here()).entered()
    return search(dataset, base, space, sweep, folder=folder, project="rooms", workers=made, scoring=asked)


def test_trials_are_compared_by_the_score_with_its_error_and_a_stopped_sweep_goes_on(dataset: Artifact, base: Base, store: Store, tmp_path: Path) -> None:
    training = settings(validation={"tasks": ["add"], "metric": "chrf"})
    asked = scoring(tmp_path, training)
    whole = _sweep(dataset, base, store.root / "whole", training, asked)
    assert whole["compared"] == {"kind": "score", "name": "chrf of add (validation records)", "unit": "", "higher_is_better": True}
    assert whole["best"]["value"] == max(row["value"] for row in whole["trials"])
    assert whole["best"]["settings"]["learning_rate"] == 1e-2
    assert all(row["value"] == max(row["course"]) and len(row["losses"]) == 3 for row in whole["trials"])
    assert whole["examples"] == 12
    best = whole["best"]
    _, adapter = train(dataset, base, Space(training, ()).settings(best["settings"]), scoring=asked, workspace=store.workspace("outside"))
    opened = LocalModel.open(base, adapter.path, dtype=torch.float32)
    again = asked.open(dataset, opened.chat, device="cpu", progress=SILENT)(opened.model)
    assert (best["value"], best["standard_error"]) == pytest.approx((fmean(again.items), stdev(again.items) / math.sqrt(12)), abs=1e-5)
    assert f"The best chrf of add (validation records) is {best['value']:.4f}" in whole["sentences"][0]
    with pytest.raises(KeyboardInterrupt):
        _sweep(dataset, base, store.root / "cut", training, asked, Here(deadly=2))
    last = Here()
    assert told(_sweep(dataset, base, store.root / "cut", training, asked, last)) == told(whole)
    assert len(last.trained) == 2
    page = (store.root / "whole" / "report.html").read_text(encoding="utf-8")
    assert "chrf of add (validation records) of each trial" in page
    assert "validation loss" not in page
    assert "Score by rank" in page


def test_a_trial_is_given_up_by_its_score(dataset: Artifact, base: Base, store: Store, tmp_path: Path) -> None:
    training = settings(validation={"metric": "brier_score"})
    asked = scoring(tmp_path, training)
    found = _sweep(dataset, base, store.root / "sweep", training, asked, prune="median", warmup=1, seed=3)
    assert {row["settings"]["learning_rate"] for row in found["trials"] if row["state"] == "pruned"} <= {1e-6}
    assert found["best"]["value"] == min(row["value"] for row in found["trials"] if row["state"] == "complete")
    assert found["compared"]["higher_is_better"] is False


def test_a_trial_in_a_process_of_its_own_is_asked_the_same(tmp_path: Path, base: Base, dataset: Artifact, store: Store) -> None:
    training = settings()
    asked = scoring(tmp_path, training)
    space, wanted = Space(training, (Choices("adaptation.rank", (1, 8)),), quantity_of(training, SweepSettings(), asked)), SweepSettings(trials=2, prune="none")
    places = ("here", "apart")
    here, apart = (
        search(dataset, base, space, wanted, folder=store.root / place, project="rooms", workers=workers, scoring=asked)
        for place, workers in zip(places, (Here().entered(), local_workers(SILENT, 1)), strict=True)
    )
    assert told(apart) == told(here)
    assert asked.digest != scoring(tmp_path, settings(validation={"metric": "macro_f1"})).digest


def test_a_sweep_by_a_score_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sweep\.by: there is no score"):
        read_space(TrainingSettings(), SweepSettings(by="score", search={"learning_rate": (0.1, 0.2)}), Document(Path("metier.yaml"), {}, {}))
    labels = TrainingSettings.model_validate({"task": "tagging", "validation": {"by": "score"}})
    assert quantity_of(labels, SweepSettings(), None).name == "F1 of exact spans (validation records)"
    assert quantity_of(labels, SweepSettings(by="loss"), None).kind == "loss"
