"""Private training: who is a unit, that each is drawn, clipped and hidden as the definition says, and what is refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from conftest import MakeDataset, conversation
from metier.errors import ModelError
from metier.models import Base, Chat, load_tokenizer, load_weights
from metier.models.methods import Shape, attach_method
from metier.records import Record, Source
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import encode_records, row_of
from metier.training.objectives import cross_entropy
from metier.training.private import Guarantee, PrivateSteps, Promise, guarantee_for, private_course
from training.observing import Said, refused

SOURCE = Source("visits.jsonl", "0" * 64, "line 1", "CC0-1.0")


def visits(count: int, people: int) -> list[Record]:
    """Return records of which each person has several, and a last one that names nobody."""
    rows = [conversation(f"第{number}号病人怎么了？", f"第{number}号好了") for number in range(count)]
    named = [replace(row, subject=f"p{number % people}", source=replace(SOURCE, position=f"line {number}")) for number, row in enumerate(rows)]
    return [*named[:-1], replace(named[-1], subject=None)]


def settings(**more: Any) -> TrainingSettings:
    common = {
        "adaptation": {"rank": 2},
        "precision": "float32",
        "learning_rate": 5e-3,
        "epochs": 2,
        "batch": {"row_tokens": 128, "maximum_tokens": 128},
        "validation": {"times": 0},
        "checkpoint": {"steps": 1},
        "privacy": {"epsilon": 8.0, "units": 5, "accountant": "rdp"},
    }
    return TrainingSettings.model_validate_json(json.dumps(common | more))


GIVEN = Guarantee(8.0, 1e-5, "rdp", 0.0, 0.5, 400, 0.3, 10, "subject")


def test_a_person_s_records_are_one_unit_and_a_row_without_one_is_its_own(base: Base) -> None:
    taught = encode_records(visits(21, 5), Chat(load_tokenizer(base)), 128)
    guarantee, units = guarantee_for(taught, settings())
    assert sorted(place for unit in units for place in unit) == list(range(21))
    assert sorted(len(unit) for unit in units) == [1, 4, 4, 4, 4, 4]
    assert guarantee.by == "5 subjects, 1 rows that name none"
    assert guarantee.sample_rate == pytest.approx(5 / 6)
    assert guarantee.steps == math.ceil(2 / (5 / 6))
    assert 7 < guarantee.epsilon <= 8.01


def test_less_epsilon_is_more_noise_and_the_accountants_agree_roughly(base: Base) -> None:
    taught = encode_records(visits(40, 40), Chat(load_tokenizer(base)), 128)
    loose, _ = guarantee_for(taught, settings())
    tight, _ = guarantee_for(taught, settings(privacy={"epsilon": 2.0, "units": 5, "accountant": "rdp"}))
    exact, _ = guarantee_for(taught, settings(privacy={"epsilon": 8.0, "units": 5, "accountant": "prv"}))
    assert tight.noise_multiplier > loose.noise_multiplier
    assert loose.noise_multiplier >= exact.noise_multiplier > 0.5 * loose.noise_multiplier
    assert exact.epsilon <= 8.1


def test_every_unit_is_drawn_with_the_same_chance_and_alone(base: Base) -> None:
    taught = encode_records(visits(21, 10), Chat(load_tokenizer(base)), 128)
    _, units = guarantee_for(taught, settings())
    course = private_course(taught, settings(), replace(GIVEN, units=len(units)), units, b"s" * 32)
    steps = course.stages[0].plan.steps
    assert len(steps) == 400
    counted = Counter(unit for step in steps for unit in step)
    assert set(counted) == set(units)
    assert all(150 < count < 250 for count in counted.values())
    assert 4 < torch.tensor([float(len(step)) for step in steps]).var() * 2 < 8, "binomial, not a fixed size"
    together = sum(units[0] in step and units[1] in step for step in steps)
    assert 70 < together < 130
    other = private_course(taught, settings(), replace(GIVEN, units=len(units)), units, b"t" * 32)
    assert other.stages[0].plan.steps != steps, "another secret draws otherwise"


@pytest.mark.parametrize("method", ["lora", "full", "adapter", "prompt"])
def test_the_gradient_is_the_sum_of_clipped_ones_over_the_expected_number(base: Base, tmp_path: Path, method: str) -> None:
    model: Any = load_weights(base, torch.float32)
    tuned = attach_method(model, method, Shape(rank=2, alpha=4, size=4, tokens=2), seed=0)
    taught = encode_records(visits(6, 3), Chat(load_tokenizer(base), virtual=tuned.virtual), 128)
    parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
    with torch.no_grad():
        for item in parameters.values():
            item.add_(torch.randn(item.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
    (tmp_path / "secret").write_bytes(b"s" * 32)
    private = PrivateSteps(model, Promise(replace(GIVEN, units=4), tmp_path / "secret"), parameters, Accelerator(cpu=True))
    units = [(0, 3), (1, 4), (5,)]
    private.with_objective(cross_entropy)(taught, units, 0)
    found = {name: item.grad for name, item in parameters.items()}
    expected = {name: torch.zeros_like(item) for name, item in parameters.items()}
    norms = []
    for unit in units:
        row = row_of([taught.examples[place] for place in unit])
        gradients = torch.autograd.grad(cross_entropy(model, row) / len(row.labels), list(parameters.values()), allow_unused=True)
        norm = math.sqrt(sum(float(item.square().sum()) for item in gradients if item is not None))
        norms.append(norm)
        for name, item in zip(parameters, gradients, strict=True):
            if item is not None:
                expected[name] += item * min(1.0, 0.3 / norm) / 2
    assert max(norms) > 0.3, "something was clipped"
    for name, item in expected.items():
        gradient = found[name]
        assert gradient is not None
        assert torch.allclose(gradient, item, rtol=1e-3, atol=1e-6)


def test_noise_has_the_promised_spread_and_is_there_in_an_empty_step(base: Base, tmp_path: Path) -> None:
    model: Any = load_weights(base, torch.float32)
    attach_method(model, "lora", Shape(rank=8, alpha=4), seed=0)
    taught = encode_records(visits(6, 3), Chat(load_tokenizer(base)), 128)
    parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
    private = PrivateSteps(model, Promise(replace(GIVEN, noise_multiplier=1.5), tmp_path / "secret"), parameters, Accelerator(cpu=True))
    gather = private.with_objective(cross_entropy)
    gathered = gather(taught, [], 0)
    assert (gathered.loss, gathered.labels) == (0, 0)
    noise = torch.cat([item.grad.flatten() for item in parameters.values() if item.grad is not None])
    assert float(noise.std()) == pytest.approx(1.5 * 0.3 / 5, rel=0.03)
    gather(taught, [], 1)
    again = torch.cat([item.grad.flatten() for item in parameters.values() if item.grad is not None])
    assert abs(float(torch.corrcoef(torch.stack([noise, again]))[0, 1])) < 0.05


def test_a_private_training_says_what_it_promises_and_throws_its_secret_away(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    dataset = make_dataset(train=visits(30, 15))
    with pytest.raises(InterruptedError):
        train(dataset, base, settings(), workspace=store.workspace("private", progress=Said(1)))
    secret = store.workspace("private").folder / "chance.secret"
    assert secret.stat().st_mode & 0o077 == 0
    run, adapter = train(dataset, base, settings(), workspace=store.workspace("private"))
    assert not secret.exists()
    said = run.facts["privacy"]
    assert said["epsilon"] <= 8.01
    assert (said["units"], said["accountant"], said["clip"]) == (16, "rdp", 1.0)
    assert said["noise_multiplier"] > 0
    assert "the adapter" in said["covers"]
    assert adapter.facts["method"] == "lora"
    assert not any(b"chance" in path.read_bytes() for path in run.path.rglob("*") if path.is_file())


def test_weights_that_did_not_move_have_no_guarantee(base: Base, tmp_path: Path) -> None:
    model: Any = load_weights(base, torch.float32)
    attach_method(model, "lora", Shape(rank=2, alpha=4), seed=0)
    parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
    private = PrivateSteps(model, Promise(GIVEN, tmp_path / "secret"), parameters, Accelerator(cpu=True))
    with pytest.raises(ModelError, match="did not move"):
        private.close(leads=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{privacy: {epsilon: 3.0}}", "validation.times"),
        ("{privacy: {epsilon: 3.0}, validation: {times: 0}, stages: [{name: a}]}", "stages"),
        ("{privacy: {epsilon: 3.0}, validation: {times: 0}, task: classification}", "privacy.labels"),
        ("{privacy: {epsilon: 3.0}, validation: {times: 0}, objectives: {ewc: 1.0}, replay: {share: 0.1}}", "objectives.ewc"),
        ("{privacy: {epsilon: 0}, validation: {times: 0}}", "epsilon"),
    ],
)
def test_what_a_guarantee_would_not_cover_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)
