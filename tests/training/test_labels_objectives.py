"""What moving away from the base model costs where labels are taught: distances and Fisher information are what plain autograd says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import MakeDataset
from metier.errors import ConfigError, InputError
from metier.models import Base
from metier.models.heads import layout_of, load_with_head
from metier.models.methods import METHODS
from metier.project import load_project
from metier.records import Record, identify
from metier.store import Store
from metier.training import train
from metier.training.batches import row_of
from metier.training.objectives import taught_losses
from metier.training.settings import ObjectiveSettings
from metier.training.taught import Labelling, prepare_labels
from training.observing import Said
from training.test_labels import ROWS, numbered
from training.test_labels_methods import settings_of
from training.test_methods_train import losses_of

SAID = [Record(id="", text=f"A {color} house stands alone.", label=color, task="replay") for color in ("red", "green", "light blue")]
GENERAL = [replace(item, id=identify(item)) for item in SAID]


def prepared(make_dataset: MakeDataset, store: Store, found: Base, method: str, **more: Any) -> Labelling:
    dataset = make_dataset(train=[*ROWS, *GENERAL])
    settings = settings_of(method, **({"task": "classification", "validation": {"times": 0}} | more))
    return prepare_labels(dataset, found, settings, "classification", workspace=store.workspace(method))


def measured(made: Labelling) -> dict[str, torch.Tensor]:
    """Return the Fisher information as the training measures it."""
    trainer = made.trainer
    taught = trainer.course.taught
    general = [place for place, origin in enumerate(taught.origins) if origin.task == "replay"]
    assert len(general) == 3
    trainer.charges.measure(taught, lambda: general, 0, trainer.progress, keep=False)
    return trainer.charges._fisher


@pytest.mark.parametrize("kind", ["encoder", "base"])
@pytest.mark.parametrize("method", ["lora", "full", "partial"])
def test_the_fisher_information_is_that_of_the_label_loss(
    method: str, kind: str, make_dataset: MakeDataset, store: Store, request: pytest.FixtureRequest
) -> None:
    found: Base = request.getfixturevalue(kind)
    made = prepared(make_dataset, store, found, method, objectives={"ewc": 1.0})
    fisher = measured(made)
    plain: Any = load_with_head(found, made.labels, torch.float32, seed=0, frozen=False)
    layout = layout_of(plain, made.labels)
    names = [name for name, _ in plain.named_parameters() if name in fisher]
    assert not [name for name in fisher if name.startswith(plain.trained_whole)]
    assert {name.rsplit(".", 1)[-1] for name in names} == ({"weight"} if method == "lora" or kind == "base" else {"weight", "bias"})
    losses = taught_losses(made.labels, layout)
    taught = made.trainer.course.taught
    squares = {name: torch.zeros_like(plain.get_parameter(name)) for name in names}
    general = [place for place, origin in enumerate(taught.origins) if origin.task == "replay"]
    for place in general:
        gradients = torch.autograd.grad(losses(plain, row_of([taught.examples[place]])).sum(), [plain.get_parameter(name) for name in names], allow_unused=True)
        for name, gradient in zip(names, gradients, strict=True):
            squares[name] += 0 if gradient is None else gradient.square()
    for name in names:
        # The norms of a frozen decoder are quick ones, which give their weights no gradient.
        if kind == "encoder" or method == "full" or "norm" not in name:
            assert torch.allclose(fisher[name].float(), squares[name] / 3, rtol=0.02, atol=1e-9), name
    assert max(float(value.max()) for value in squares.values()) > 1e-6


def filled(made: Labelling, rows: Sequence[Sequence[int]], objectives: ObjectiveSettings) -> dict[str, torch.Tensor]:
    """Return the gradients of one step over these rows, penalties among them, as the loop has them."""
    trainer = made.trainer
    for parameter in trainer.parameters.values():
        parameter.grad = None
    trainer._gather(objectives)(trainer.course.taught, rows, 0)
    for penalty in trainer._penalties(objectives):
        penalty().backward()
    return {name: parameter.grad.clone() for name, parameter in trainer.parameters.items() if parameter.grad is not None}


@pytest.mark.parametrize("objective", ["start", "ewc"])
@pytest.mark.parametrize("method", ["lora", "full", "partial"])
def test_a_step_is_the_loss_and_the_penalty_however_its_rows_are_cut(
    method: str, objective: str, make_dataset: MakeDataset, store: Store, encoder: Base
) -> None:
    objectives = ObjectiveSettings.model_validate({objective: 0.7})
    made = prepared(make_dataset, store, encoder, method, objectives={objective: 0.7})
    trainer = made.trainer
    starts = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    fisher = measured(made)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.parameters.values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    trainer.model.eval()
    together = filled(made, [tuple(range(8))], objectives)
    apart = filled(made, [tuple(range(4)), tuple(range(4, 8))], objectives)
    assert together.keys() == apart.keys()
    for name in together:
        assert torch.allclose(together[name], apart[name], rtol=1e-4, atol=1e-6), name
    row = row_of([trainer.course.taught.examples[place] for place in range(8)])
    loss = taught_losses(made.labels, layout_of(trainer.model, made.labels))(trainer.model, row).sum() / len(row.labels)
    penalty = torch.zeros(())
    for name, parameter in trainer.parameters.items():
        if name.startswith(tuple(f"{part}." for part in trainer.model.trained_whole)) or name.endswith("lora_b"):
            continue
        if method == "lora":
            layer = trainer.model.get_submodule(name.removesuffix(".lora_a"))
            key, moved = name.replace(".lora_a", ".weight"), layer.scale * layer.lora_b @ layer.lora_a
        else:
            key, moved = name.replace("trained_", ""), parameter - starts[name]
        penalty = penalty + (moved.square().sum() if objective == "start" else (fisher[key].float() * moved.square()).sum() / 2)
    assert penalty.item() > 1e-8
    learnt = [trainer.parameters[name] for name in together]
    expected = torch.autograd.grad(loss + 0.7 * penalty, learnt)
    for name, gradient in zip(together, expected, strict=True):
        assert torch.allclose(together[name], gradient, rtol=1e-3, atol=1e-6), name


CHARGED = [(name, key) for name, facts in METHODS.items() for key, able in (("start", facts.measured), ("ewc", facts.moves)) if able]


@pytest.mark.parametrize(("method", "objective"), CHARGED)
def test_every_method_that_can_stays_nearer_to_where_it_began(method: str, objective: str, make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    dataset = make_dataset(train=[*ROWS, *GENERAL])
    moved = []
    for weight in (1e-12, 0.5 if objective == "start" else 3e4):
        settings = settings_of(method, task="classification", validation={"times": 0}, objectives={objective: weight})
        made = prepare_labels(dataset, encoder, settings, "classification", workspace=store.workspace(f"{weight}"))
        made.trainer.run()
        (penalty,) = made.trainer.charges.of(ObjectiveSettings.model_validate({objective: 1.0}))
        moved.append(penalty().item())
    assert 0 < moved[1] < 0.7 * moved[0]


def test_what_has_no_meaning_for_labels_is_refused_with_the_reason(make_dataset: MakeDataset, store: Store, encoder: Base, base: Base) -> None:
    dataset = make_dataset(train=[*ROWS, *GENERAL])
    for found in (encoder, base):
        with pytest.raises(InputError, match="has no distribution over labels to stay near") as caught:
            train(dataset, found, settings_of("lora", task="classification", objectives={"kl": 0.1}), workspace=store.workspace("kl"))
        assert "`start`" in str(caught.value)
        assert "training.objectives.kl" in str(caught.value)
    settings = settings_of("lora", task="classification", replay={"share": 0.2, "written": 8, "max_new_tokens": 9})
    with pytest.raises(InputError, match=r"training\.replay\.written") as caught:
        train(dataset, encoder, settings, workspace=store.workspace("written"))
    assert "training.replay.max_new_tokens" in str(caught.value)
    with pytest.raises(InputError, match=r"say in training\.replay\.records which labelled records are general"):
        train(make_dataset(train=ROWS), encoder, settings_of("lora", task="classification", objectives={"ewc": 1.0}), workspace=store.workspace("none"))
    with pytest.raises(ValueError, match=r"objectives\.start is for methods that know how far.*\n    -> choose one of them"):
        settings_of("dora", task="classification", objectives={"start": 0.1})


def test_the_project_file_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"a": "b"}\n')
    head = "metier: 1\nproject: p\npack: example\nsources:\n  - {path: data.jsonl, licence: CC0-1.0, columns: {text: a, label: a}}\n"
    stages = "stages: [{name: one, objectives: {kl: 0.1}}], replay: {share: 0.1, written: 4}"
    (tmp_path / "metier.yaml").write_text(f"{head}training: {{task: tagging, {stages}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path)
    assert "training.stages: one: objectives.kl does not go with the task tagging" in str(caught.value)
    assert "training.replay.written does not go with the task tagging" in str(caught.value)
    (tmp_path / "metier.yaml").write_text(f"{head}training: {{task: generation, {stages}}}\n")
    load_project(tmp_path)


def test_general_labelled_records_come_by_their_share(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    dataset = make_dataset(train=[*numbered(ROWS), *numbered(GENERAL)])
    settings = settings_of("lora", task="regression", replay={"share": 0.25}, epochs=2.0)
    made = prepare_labels(dataset, encoder, settings, "regression", workspace=store.workspace("share"))
    (stage,) = made.trainer.stages
    taught = made.trainer.course.taught
    seen = [taught.origins[place].task == "replay" for place in stage.plan.steps.places]
    assert sum(seen) / len(seen) == pytest.approx(0.25, abs=0.02)
    made.trainer.run()
    assert json.loads(made.trainer.metrics.read_text().splitlines()[-1])["loss"] < 3


@pytest.mark.parametrize("method", ["full", "lora"])
def test_interrupted_and_started_again_it_is_held_to_the_same_start(method: str, make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    dataset = make_dataset(train=[*ROWS, *GENERAL])
    settings = settings_of(method, task="classification", validation={"times": 0}, objectives={"start": 0.01, "ewc": 30.0})
    run, trained = train(dataset, encoder, settings, workspace=store.workspace("straight"))
    with pytest.raises(InterruptedError):
        train(dataset, encoder, settings, workspace=store.workspace("broken", progress=Said(3)))
    again, same = train(dataset, encoder, settings, workspace=store.workspace("broken"))
    assert losses_of(again) == losses_of(run)
    assert same.files == trained.files
