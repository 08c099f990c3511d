"""Ranks that are shared out by gradients, through the training stage."""

from __future__ import annotations

import json
from typing import Any

import pytest

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.models import Base
from metier.store import Store
from metier.training import TrainingSettings, train
from training.observing import Said

ROWS = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}") for color, place in (("红", "左边"), ("绿", "右边")) for thing in "书笔灯门窗"]


def settings(**adaptation: Any) -> TrainingSettings:
    given = {
        "adaptation": {"rank": 4, **adaptation},
        "precision": "float32",
        "learning_rate": 5e-3,
        "batch": {"row_tokens": 128, "maximum_tokens": 128},
        "validation": {"times": 0},
        "checkpoint": {"steps": 1},
    }
    return TrainingSettings.model_validate_json(json.dumps(given))


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=ROWS)


def test_layers_get_ranks_of_their_own_that_are_saved_and_kept_over_an_interruption(dataset: Artifact, base: Base, store: Store) -> None:
    chosen = settings(allocate="sensitivity")
    run, adapter = train(dataset, base, chosen, workspace=store.workspace("whole"))
    even, _ = train(dataset, base, settings(), workspace=store.workspace("even"))
    ranks = run.facts["settings"]["effective"]["adaptation"]["ranks"]
    assert len(set(ranks.values())) > 1
    assert run.facts["trainable_parameters"] == pytest.approx(even.facts["trainable_parameters"], rel=0.1)
    assert run.facts["trainable_parameters"] <= even.facts["trainable_parameters"]
    config = json.loads(adapter.file("adapter_config.json").read_bytes())
    assert {name: rank for name, rank in ranks.items() if rank != 4} == config["rank_pattern"]
    with pytest.raises(InterruptedError):
        train(dataset, base, chosen, workspace=store.workspace("parts", progress=Said(1)))
    _, same = train(dataset, base, chosen, workspace=store.workspace("parts"))
    assert same.file("adapter_model.safetensors").read_bytes() == adapter.file("adapter_model.safetensors").read_bytes()


def test_ranks_that_are_given_and_worked_out_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="take one of them out"):
        settings(allocate="sensitivity", ranks={"q_proj": 2})
