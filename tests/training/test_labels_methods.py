"""Every method teaches labels and spans, on encoders and decoders: interrupted is uninterrupted, what is saved is sound and opens again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from conftest import MakeDataset
from metier.artifacts import Artifact
from metier.errors import ConfigError, InputError, ModelError
from metier.models import Base, Labeller, load_tokenizer, resolve
from metier.models.adapterfile import adapter_faults
from metier.models.methods import METHODS
from metier.project import load_project
from metier.store import Store
from metier.training import TrainingSettings, train
from training.observing import Said
from training.test_labels import ROWS
from training.test_methods_train import SIZES, losses_of


def settings_of(method: str, **more: Any) -> TrainingSettings:
    sizes = SIZES[METHODS[method].family] | ({"adaptation": {"layers": 1}} if method == "partial" else {})
    common = {"epochs": 2.0, "learning_rate": 5e-3, "precision": "float32", "batch": {"row_tokens": 128, "maximum_tokens": 64}}
    return TrainingSettings.model_validate({"method": method, "validation": {"times": 2}, "checkpoint": {"steps": 1}} | sizes | common | more)


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=ROWS[:20], validation=ROWS[20:])


@pytest.mark.parametrize("task", ["classification", "tagging"])
@pytest.mark.parametrize("kind", ["encoder", "base"])
@pytest.mark.parametrize("method", METHODS)
def test_interrupted_and_started_again_it_is_the_same_training(
    method: str, kind: str, task: str, dataset: Artifact, store: Store, request: pytest.FixtureRequest
) -> None:
    found: Base = request.getfixturevalue(kind)
    settings = settings_of(method, task=task)
    run, trained = train(dataset, found, settings, workspace=store.workspace("straight"))
    with pytest.raises(InterruptedError):
        train(dataset, found, settings, workspace=store.workspace("broken", progress=Said(3)))
    again, same = train(dataset, found, settings, workspace=store.workspace("broken"))
    assert losses_of(again) == losses_of(run)
    assert same.files == trained.files
    assert trained.facts["method"] == method
    assert adapter_faults(trained.path, rank=trained.facts["rank"], base=found.digest, trained_on=found.digest) == []
    answers = Labeller.open(found, trained.path, dtype=torch.float32).predict([item.text for item in ROWS])
    assert all(answer.read for answer in answers)


@pytest.mark.parametrize("kind", ["encoder", "base"])
@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("lora", "full")])
def test_a_label_is_learnt_by_heart(method: str, kind: str, make_dataset: MakeDataset, store: Store, request: pytest.FixtureRequest) -> None:
    found: Base = request.getfixturevalue(kind)
    rate = {"virtual": 3e-2}.get(METHODS[method].family, 1e-2)
    settings = settings_of(method, task="classification", epochs=60.0, learning_rate=rate, validation={"times": 0})
    _, trained = train(make_dataset(train=ROWS), found, settings, workspace=store.workspace("label"))
    answers = Labeller.open(found, trained.path, dtype=torch.float32).predict([item.text for item in ROWS])
    # One sentence a colour names no colour but its number of letters.
    assert sum(answer.labels == (item.label,) for answer, item in zip(answers, ROWS, strict=True)) >= len(ROWS) - 3


def test_ranks_are_shared_out_where_they_do_most(dataset: Artifact, store: Store, encoder: Base) -> None:
    settings = settings_of("lora", task="tagging", adaptation={"rank": 4, "allocate": "sensitivity", "targets": ("query", "value", "dense")})
    run, trained = train(dataset, encoder, settings, workspace=store.workspace("ranks"))
    ranks = run.facts["settings"]["effective"]["adaptation"]["ranks"]
    assert len(set(ranks.values())) > 1, "no layer got more than another"
    config = json.loads(trained.file("adapter_config.json").read_text())
    assert config["rank_pattern"] == {name: rank for name, rank in ranks.items() if rank != 4}
    assert config["target_modules"] == ["dense", "query", "value"]
    assert adapter_faults(trained.path, rank=4) == []
    assert Labeller.open(encoder, trained.path, dtype=torch.float32).predict([ROWS[0].text])[0].read


def test_layers_of_alike_names_are_told_apart(dataset: Artifact, store: Store, encoder: Base) -> None:
    targets = {"rank": 4, "targets": ("attention.output.dense",), "ranks": {"layer.0.attention.output.dense": 2}}
    _, trained = train(dataset, encoder, settings_of("dora", task="tagging", adaptation=targets), workspace=store.workspace("alike"))
    config = json.loads(trained.file("adapter_config.json").read_text())
    assert config["target_modules"] == [f"bert.encoder.layer.{number}.attention.output.dense" for number in (0, 1)]
    assert config["rank_pattern"] == {"bert.encoder.layer.0.attention.output.dense": 2}
    assert Labeller.open(encoder, trained.path, dtype=torch.float32).predict([ROWS[0].text])[0].read


def without_places(folder: Path, encoder: Base) -> Base:
    """Write an encoder whose layers are built otherwise than those of BERT."""
    config = transformers.DistilBertConfig(vocab_size=len(load_tokenizer(encoder)), dim=32, hidden_dim=64, n_layers=1, n_heads=4)
    transformers.DistilBertForMaskedLM(config).save_pretrained(folder)
    load_tokenizer(encoder).save_pretrained(folder)
    return resolve(str(folder), root=folder)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"method": "adapter"}, "has no block where a bottleneck could stand\n    -> use training.method: lora"),
        ({"method": "partial", "adaptation": {"layers": 3}}, "training.adaptation.layers is 3, and this base model has 1 layers"),
        ({"method": "prefix"}, "makes no keys that a prefix could stand before\n    -> use training.method: prompt"),
        ({"method": "lora", "adaptation": {"targets": ("q_proj",)}}, "no linear layer of this base model is called 'q_proj'"),
        ({"method": "lora", "adaptation": {"ranks": {"querry": 3}}}, "no adapted layer is called 'querry'"),
    ],
)
def test_what_a_model_has_no_place_for_is_refused_before_it_is_loaded(
    more: dict[str, Any], said: str, dataset: Artifact, store: Store, encoder: Base, tmp_path: Path
) -> None:
    found = without_places(tmp_path / "model", encoder)
    for weights in found.folder.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(ModelError) as caught:
        train(dataset, found, TrainingSettings.model_validate({"task": "tagging"} | more), workspace=store.workspace("refused"))
    assert said in str(caught.value)


def test_settings_that_nothing_reads_are_refused(dataset: Artifact, store: Store, encoder: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tagging is trained by full without `adaptation.rank`"):
        train(dataset, encoder, TrainingSettings.model_validate({"task": "tagging", "adaptation": {"rank": 3}}), workspace=store.workspace("unread"))
    (tmp_path / "data.jsonl").write_text('{"a": "b"}\n')
    head = "metier: 1\nproject: p\npack: example\nsources:\n  - {path: data.jsonl, licence: CC0-1.0, columns: {text: a, label: a}}\n"
    (tmp_path / "metier.yaml").write_text(f"{head}training: {{task: classification, method: partial, adaptation: {{head: true}}}}\n")
    with pytest.raises(ConfigError, match="the head of classification is trained by every method"):
        load_project(tmp_path)


@pytest.mark.parametrize(
    ("method", "kind", "rate"),
    [("full", "encoder", 2e-4), ("partial", "encoder", 5e-4), ("lora", "encoder", 2e-3), ("prompt", "encoder", 3e-2), ("lora", "base", 5e-4)],
)
def test_rates_for_labels_are_their_own_by_default(
    method: str, kind: str, rate: float, dataset: Artifact, store: Store, request: pytest.FixtureRequest
) -> None:
    settings = settings_of(method, task="classification", epochs=1.0, learning_rate="auto")
    run, _ = train(dataset, request.getfixturevalue(kind), settings, workspace=store.workspace("rate"))
    assert run.facts["settings"]["effective"]["learning_rate"] == rate
