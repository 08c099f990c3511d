"""Seeing inside a training: what is measured is what is there, what goes wrong is said, and nothing is handed to anyone unasked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.errors import InputError
from metier.models import Base
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.distribution import Replicated
from metier.training.monitor import Monitor, layer_of
from metier.training.page import Page
from training.observing import Said

ROWS = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}") for color, place in (("红", "左边"), ("绿", "右边")) for thing in "书笔灯门窗桌"]


def settings(**more: Any) -> TrainingSettings:
    common = {
        "adaptation": {"rank": 2},
        "precision": "float32",
        "learning_rate": 5e-3,
        "epochs": 4,
        "batch": {"row_tokens": 128, "maximum_tokens": 128},
        "validation": {"times": 2},
        "checkpoint": {"steps": 1},
        "monitor": {"every": 2},
    }
    return TrainingSettings.model_validate_json(json.dumps(common | more))


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=ROWS[:10], validation=ROWS[10:])


def watched(gradients: Callable[[int], dict[str, float]], steps: int, *, moves: float = 1e-3) -> tuple[Monitor, list[str]]:
    """Return a monitor that has seen steps of parameters whose gradients have these norms."""
    said: list[str] = []
    parameters = {f"model.{name}.lora_a": torch.nn.Parameter(torch.ones(100)) for name in gradients(0)}
    monitor = Monitor(parameters, Replicated(Accelerator(cpu=True)), every=1, file=None, say=said.append, warm=1)
    for step in range(steps):
        for name, value in gradients(step).items():
            parameters[f"model.{name}.lora_a"].grad = torch.full((100,), value / 10)
        monitor.watch()
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.mul_(1 + moves)
        monitor.settle(step + 1, steps)
    return monitor, said


def test_a_layer_s_parts_are_taken_together() -> None:
    assert layer_of("model.layers.3.self_attn.q_proj.lora_b") == "layers.3.self_attn.q_proj"
    assert layer_of("model.layers.3.mlp.up_proj.trained_weight") == "layers.3.mlp.up_proj"
    assert layer_of("model.layers.3.mlp.up_proj.gate.place") == "layers.3.mlp.up_proj"


def test_a_gradient_that_explodes_is_said_once_and_counted_each_time() -> None:
    monitor, said = watched(lambda step: {"a": 50.0 if step in (8, 9) else 1.0}, 12)
    assert len(monitor.alarms) == 2
    assert len(said) == 1
    assert "step 9: the gradient is 50 times as long as usual" in said[0]


def test_a_layer_that_no_gradient_reaches_is_named() -> None:
    _, said = watched(lambda _: {"a": 1.0, "b": 1.0, "deaf": 1e-9}, 6)
    assert said == ["warning: step 3: hardly any gradient reaches deaf: it learns nothing"]


def test_an_update_that_leaps_is_said_after_the_warm_up() -> None:
    _, said = watched(lambda _: {"a": 1.0}, 3, moves=0.5)
    assert said == ["warning: step 2: a moved by 50% of its size in one step; lower training.learning_rate"]


def test_what_is_written_are_the_gradients_and_the_movement(dataset: Artifact, base: Base, store: Store) -> None:
    run, _ = train(dataset, base, settings(), workspace=store.workspace("run"))
    metrics = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in run.file("diagnostics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [step for step in range(1, len(metrics) + 1) if step % 2 == 0]
    assert set(rows[0]["gradients"]) == set(rows[0]["updates"])
    assert sum(name.endswith("q_proj") for name in rows[0]["gradients"]) == 2
    for row in rows:
        norm = math.sqrt(sum(value**2 for value in row["gradients"].values()))
        assert norm == pytest.approx(metrics[row["step"] - 1]["gradient_norm"], rel=1e-2)
    assert all(ratio > 0 for ratio in rows[1]["updates"].values())
    assert run.facts["alarms"] == [] or all(alarm.startswith("step") for alarm in run.facts["alarms"])


def test_an_interrupted_training_has_no_step_twice_and_none_missing(dataset: Artifact, base: Base, store: Store) -> None:
    whole, _ = train(dataset, base, settings(), workspace=store.workspace("whole"))
    with pytest.raises(InterruptedError):
        train(dataset, base, settings(), workspace=store.workspace("parts", progress=Said(stop=4)))
    parts, _ = train(dataset, base, settings(), workspace=store.workspace("parts"))
    assert parts.file("diagnostics.jsonl").read_bytes() == whole.file("diagnostics.jsonl").read_bytes()


def test_the_page_shows_the_losses_and_asks_nobody_for_anything(dataset: Artifact, base: Base, store: Store, tmp_path: Path) -> None:
    run, _ = train(dataset, base, settings(), workspace=store.workspace("page"))
    page = run.file("watch.html").read_text(encoding="utf-8")
    assert "Training ended after" in page
    assert page.count("<svg") == 3
    assert "refresh" not in page
    assert not any(word in page for word in ("<script", "src=", "href=", "@import", "url("))
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(run.file("metrics.jsonl").read_bytes().splitlines(keepends=True)[0] + b'{"step": 2, "lo')
    Page(tmp_path / "watch.html", metrics, total=60).update(["step 1: <b>odd</b>"])
    live = (tmp_path / "watch.html").read_text(encoding="utf-8")
    assert "Step 1 of 60" in live
    assert 'http-equiv="refresh"' in live
    assert "&lt;b&gt;odd" in live


def test_metrics_go_to_a_tracker_that_is_named_and_to_nobody_else(dataset: Artifact, base: Base, store: Store) -> None:
    said = Said()
    run, _ = train(dataset, base, settings(monitor={"trackers": ["tensorboard"]}), workspace=store.workspace("tracked", progress=said))
    assert "metrics are handed to tensorboard" in said.said
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (store.workspace("tracked").folder / "trackers").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    losses = [json.loads(line)["loss"] for line in run.file("metrics.jsonl").read_text().splitlines()]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses)
    assert len(events.Scalars("validation_loss")) == 2
    train(dataset, base, settings(), workspace=store.workspace("quiet"))
    assert not (store.workspace("quiet").folder / "trackers").exists()


def test_a_tracker_that_is_not_there_is_said_before_the_first_step(dataset: Artifact, base: Base, store: Store) -> None:
    with pytest.raises(InputError, match="the tracker trackio is not installed") as caught:
        train(dataset, base, settings(monitor={"trackers": ["mlflow", "trackio"]}), workspace=store.workspace("none"))
    assert "pip install mlflow" in str(caught.value)
