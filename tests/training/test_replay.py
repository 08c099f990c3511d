"""The base model's own answers, their share among the examples, and the weights that matter to them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.errors import InputError, ModelError
from metier.models import Base, Chat, LocalModel, load_tokenizer, load_weights
from metier.models.importance import consolidation, measure_fisher, moving_weights
from metier.models.lora import LoraLinear
from metier.models.methods import METHODS, Shape, attach_method, open_adapter
from metier.progress import Silent
from metier.records import identify
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import WRITTEN, Row, encode_records, row_of
from metier.training.curriculum import general_of, plan_course
from metier.training.objectives import cross_entropy
from metier.training.replay import Answered, encode_written, general_prompts, write_answers
from metier.training.settings import ReplaySettings

PLACES = (("红", "左边"), ("绿", "右边"))
ROWS = [replace(conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}"), language="zh") for color, place in PLACES for thing in "书笔灯门窗桌"]
SAID = [conversation(f"Say {word}.", word) for word in ("yes", "no", "up", "down")]
GENERAL = [replace(row, id=identify(replace(row, task="replay")), task="replay") for row in SAID]


def settings(**more: Any) -> TrainingSettings:
    common = {
        "adaptation": {"rank": 4},
        "precision": "float32",
        "learning_rate": 5e-3,
        "epochs": 4,
        "batch": {"row_tokens": 128, "maximum_tokens": 128},
        "validation": {"times": 0},
        "checkpoint": {"steps": 1},
    }
    return TrainingSettings.model_validate_json(json.dumps(common | more))


def nats(model: Any, row: Row) -> tuple[torch.Tensor, int]:
    return cross_entropy(model, row), len(row.labels)


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=[*ROWS, *GENERAL])


def test_general_questions_are_all_different_and_in_both_languages() -> None:
    found = general_prompts(1000, ["zh", "en"])
    assert len(set(found)) == 1000
    assert Counter(language for language, _ in found) == {"zh": 500, "en": 500}
    assert found[:10] == general_prompts(10, ["en", "zh"])
    assert {language for language, _ in general_prompts(20, ["zh"])} == {"zh"}
    assert not any("{" in prompt for _, prompt in found)


def test_replayed_records_come_by_their_share_alone_and_none_before_all(base: Base) -> None:
    taught = encode_records([*ROWS, *GENERAL], Chat(load_tokenizer(base)), 128)
    (stage,) = plan_course(taught, taught, settings(replay={"share": 0.25})).stages
    counted = Counter(index for step in stage.plan.steps for row in step for index in row)
    general = set(general_of(taught, settings()))
    assert len(general) == 4
    assert sum(count for index, count in counted.items() if index in general) == 16, "a quarter of each pass of 12 + 4, four times"
    assert {counted[index] for index in general} == {4}
    assert {count for index, count in counted.items() if index not in general} == {4}
    (plain,) = plan_course(taught, taught, settings()).stages
    assert len(plain.chosen) == 16


class _Stops(Silent):
    def __init__(self, count: int) -> None:
        self._left = count

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        if task == "replay":
            self._left -= amount
            if self._left < 0:
                raise InterruptedError


def test_the_base_model_s_answers_are_written_once_and_go_on_where_they_were(base: Base, tmp_path: Path) -> None:
    model = LocalModel.open(base, dtype=torch.float32)
    chosen = ReplaySettings(written=70, max_new_tokens=8)
    whole = write_answers(model, base, chosen, ["zh", "en"], folder=tmp_path / "whole", progress=Silent())
    with pytest.raises(InterruptedError):
        write_answers(model, base, chosen, ["zh", "en"], folder=tmp_path / "parts", progress=_Stops(40))
    (path,) = (tmp_path / "parts").glob("*.jsonl")
    with path.open("ab") as stream:
        stream.write(b'{"language": "zh", "pro')
    assert write_answers(model, base, chosen, ["zh", "en"], folder=tmp_path / "parts", progress=Silent()) == whole
    before = path.read_bytes()
    again = write_answers(model, base, chosen, ["zh", "en"], folder=tmp_path / "parts", progress=_Stops(70))
    assert (again, path.read_bytes()) == (whole, before), "nothing is asked or written again"


def test_an_answer_that_was_cut_is_learnt_without_an_end(base: Base) -> None:
    chat = Chat(load_tokenizer(base))
    taught = encode_records(ROWS[:1], chat, 128)
    answers = [Answered("en", "Say it.", "bees fly", True), Answered("en", "Say it.", "bees fly", False), Answered("en", "Say it.", "bees " * 200, True)]
    taught = taught.joined(encode_written(answers, chat, 128))
    ended, cut = taught.examples[1:]
    assert ended.tokens[: len(cut)] == cut.tokens
    stops = [[token for token in row_of([item]).labels.tolist() if token in chat.stop_tokens] for item in (ended, cut)]
    assert [len(found) for found in stops] == [1, 0]
    assert [origin.source for origin in taught.origins[1:]] == [WRITTEN, WRITTEN]
    assert taught.origins[1].language == "en"


def test_a_training_learns_them_along_and_puts_them_on_record(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    chosen = settings(replay={"share": 0.5, "written": 8, "max_new_tokens": 8}, epochs=1)
    dataset = make_dataset(train=ROWS)
    run, adapter = train(dataset, base, chosen, workspace=store.workspace("replay"))
    rows = [json.loads(line) for line in run.file("replay.jsonl").read_text(encoding="utf-8").splitlines()]
    assert 0 < len(rows) <= 8
    assert {row["language"] for row in rows} == {"zh"}, "the questions are in the languages of the data"
    assert run.facts["examples"] == 12 + len(rows)
    again, same = train(dataset, base, chosen, workspace=store.workspace("again"))
    assert again.file("metrics.jsonl").exists()
    assert same.file("adapter_model.safetensors").read_bytes() == adapter.file("adapter_model.safetensors").read_bytes()


def test_replay_without_anything_general_is_refused_before_a_model_is_loaded(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    with pytest.raises(InputError) as caught:
        train(make_dataset(train=ROWS), base, settings(replay={"share": 0.2}, objectives={"ewc": 1.0}), workspace=store.workspace("none"))
    assert "training.replay.share" in str(caught.value)
    assert "training.objectives.ewc" in str(caught.value)
    assert "replay.written" in str(caught.value)


# Weights that matter


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_fisher_information_is_the_mean_squared_gradient_a_token(base: Base, method: str) -> None:
    model = load_weights(base, torch.float32)
    tuned = attach_method(model, method, Shape(rank=4, alpha=8), seed=0)
    tuned.enable(False)
    chat = Chat(load_tokenizer(base))
    rows = [row_of([chat.encode(record.messages)]) for record in GENERAL]
    weights = moving_weights(model)
    found = measure_fisher(weights, rows, partial(nats, model), lambda: None)
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    plain = load_weights(base, torch.float32)
    weight = plain.get_parameter(name)
    weight.requires_grad_(True)
    squares = torch.zeros_like(weight)
    for row in rows:
        (gradient,) = torch.autograd.grad(cross_entropy(plain, row), weight)
        squares += gradient**2
    expected = squares / sum(len(row.labels) for row in rows)
    assert torch.allclose(found[name].float(), expected, rtol=0.02, atol=1e-9)
    assert expected.max() > 1e-7
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters() if ".base." in name)


@pytest.mark.parametrize("method", ["lora", "rslora", "adalora", "partial"])
def test_the_penalty_and_its_gradient_are_those_of_the_moved_weights(base: Base, method: str) -> None:
    model = load_weights(base, torch.float32)
    attach_method(model, method, Shape(rank=4, alpha=8, layers=1), seed=0)
    weights = moving_weights(model)
    generator = torch.Generator().manual_seed(1)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in learnt:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    fisher = {name: torch.rand(weight.own.shape, generator=generator).to(torch.bfloat16) for name, weight in weights.items()}
    expected = torch.zeros(())
    for key in weights:
        name = key.removesuffix(".weight")
        layer = model.get_submodule(name)
        if isinstance(layer, LoraLinear):
            a = layer.lora_a if layer.directions is None else layer.lora_a * layer.directions[:, None]
            moved = layer.scale * layer.lora_b @ a
        else:
            moved = layer.trained_weight - layer.base.weight  # type: ignore[union-attr, operator]
        expected = expected + (fisher[key].float() * moved.square()).sum() / 2
    found = consolidation(weights, fisher)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    ours = torch.autograd.grad(found, learnt, allow_unused=True)
    theirs = torch.autograd.grad(expected, learnt, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        assert one is None or other is None or torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def test_an_expert_that_must_not_move_what_matters_keeps_its_general_answers_better(dataset: Artifact, base: Base, store: Store) -> None:
    chat = Chat(load_tokenizer(base))
    row = row_of([chat.encode(record.messages) for record in GENERAL])
    losses, penalties = [], []
    kept: dict[str, torch.Tensor] = {}
    for weight in (0.0, 300.0):
        chosen = settings(objectives={"ewc": weight}, replay={"share": 0.01}, epochs=8)
        run, adapter = train(dataset, base, chosen, workspace=store.workspace(f"ewc-{weight}"))
        model = load_weights(base, torch.float32)
        tuned = open_adapter(model, adapter.path)
        with torch.no_grad():
            losses.append(cross_entropy(model, row).item() / len(row.labels))
        if not kept:
            tuned.enable(False)
            kept = measure_fisher(moving_weights(model), [row], partial(nats, model), lambda: None)
            tuned.enable(True)
        penalties.append(consolidation(moving_weights(model), kept).item())
        assert run.facts["final_loss"] < 6
    assert penalties[1] < 0.5 * penalties[0]


def test_the_measurement_is_kept_and_an_interrupted_training_goes_on_the_same(dataset: Artifact, base: Base, store: Store) -> None:
    class Interrupted(Silent):
        def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
            if task == "training" and note.startswith("loss"):
                raise InterruptedError

    chosen = settings(objectives={"ewc": 10.0})
    run, adapter = train(dataset, base, chosen, workspace=store.workspace("straight"))
    with pytest.raises(InterruptedError):
        train(dataset, base, chosen, workspace=store.workspace("broken", progress=Interrupted()))
    assert (store.workspace("broken").folder / "fisher.safetensors").exists()
    again, same = train(dataset, base, chosen, workspace=store.workspace("broken"))
    assert again.file("metrics.jsonl").exists()
    assert run.facts["final_loss"] == again.facts["final_loss"]
    assert same.file("adapter_model.safetensors").read_bytes() == adapter.file("adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize("method", [name for name, facts in METHODS.items() if not facts.moves])
def test_methods_that_move_no_weights_know_no_such_penalty(base: Base, method: str) -> None:
    with pytest.raises(ValueError, match=r"use objectives\.kl"):
        settings(method=method, adaptation={}, objectives={"ewc": 1.0})
    if method != "qlora":
        model = load_weights(base, torch.float32)
        attach_method(model, method, Shape(rank=2, alpha=4, size=4, tokens=2), seed=0)
        if method != "gated-lora":
            with pytest.raises(ModelError, match=r"training\.objectives\.kl"):
                moving_weights(model)


def test_answers_that_nothing_would_use_are_not_asked_for() -> None:
    with pytest.raises(ValueError, match=r"used by replay\.share or objectives\.ewc"):
        settings(replay={"written": 8})
