"""Every method through the training stage: interrupted is uninterrupted, the best is what is saved, keys of other methods are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.models import Base, GenerationSettings, LocalModel
from metier.models.methods import METHODS
from metier.store import Store
from metier.training import TrainingSettings, train
from training.observing import Said, refused

ROWS = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}") for color, place in (("红", "左边"), ("绿", "右边")) for thing in "书笔灯门窗"]
SIZES: dict[str, dict[str, Any]] = {
    "low-rank": {"adaptation": {"rank": 4}},
    "adaptive": {"adaptation": {"rank": 4}},
    "weights": {},
    "bottleneck": {"adaptation": {"size": 8}},
    "virtual": {"adaptation": {"tokens": 4}},
}


def settings_of(method: str, **more: Any) -> TrainingSettings:
    sizes = SIZES[METHODS[method].family] | ({"adaptation": {"layers": 1}} if method == "partial" else {})
    batch = {"row_tokens": 128, "rows": 1, "maximum_tokens": 128}
    common = {"epochs": 3.0, "learning_rate": 5e-3, "precision": "float32", "batch": batch, "validation": {"times": 2}, "checkpoint": {"steps": 1}}
    return TrainingSettings.model_validate({"method": method} | sizes | common | more)


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=ROWS[:8], validation=ROWS[8:])


def losses_of(run: Artifact) -> list[float]:
    return [json.loads(line)["loss"] for line in run.file("metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_and_started_again_it_is_the_same_training(dataset: Artifact, base: Base, store: Store, method: str) -> None:
    settings = settings_of(method)
    run, adapter = train(dataset, base, settings, workspace=store.workspace("straight"))
    with pytest.raises(InterruptedError):
        train(dataset, base, settings, workspace=store.workspace("broken", progress=Said(2)))
    again, same = train(dataset, base, settings, workspace=store.workspace("broken"))
    assert losses_of(again) == losses_of(run)
    assert losses_of(run)[-1] < losses_of(run)[0]
    assert same.file("adapter_model.safetensors").read_bytes() == adapter.file("adapter_model.safetensors").read_bytes()
    assert adapter.facts["method"] == method
    assert (adapter.facts["rank"] is None) == (METHODS[method].family not in {"low-rank", "adaptive"})


def test_all_weights_learn_an_answer_by_heart(dataset: Artifact, base: Base, store: Store) -> None:
    settings = settings_of("full", epochs=30.0, validation={"times": 0})
    _, adapter = train(dataset, base, settings, workspace=store.workspace("learn"))
    expert = LocalModel.open(base, adapter.path)
    assert expert.generate([ROWS[0].messages[:1]], GenerationSettings(max_new_tokens=24))[0].text == "书在左边"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{method: full, adaptation: {rank: 8}}", "the method 'full' does not use adaptation.rank"),
        ("{method: lora, adaptation: {tokens: 8}}", "the method 'lora' does not use adaptation.tokens"),
        ("{method: prompt, adaptation: {size: 8, tokens: 4}}", "the method 'prompt' does not use adaptation.size"),
        ("{method: lorra}", "'lora'"),
        ("{learning_rate: 0.0}", "above 0"),
    ],
)
def test_a_key_of_another_method_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)
