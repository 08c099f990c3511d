"""Private training of labels: each person's gradient is clipped by itself, adapters and head alike; what a head answers is stated, never read off the data."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from opacus.accountants import RDPAccountant
from safetensors.torch import load_file

from conftest import MakeDataset
from metier.errors import ConfigError, ModelError
from metier.models import Base, Labeller
from metier.models.labels import Labelling, read_labelling
from metier.project import load_project
from metier.records import Record, Source
from metier.shards import read_drops
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import Row, row_of
from metier.training.classweights import class_weights
from metier.training.examples import Labelled
from metier.training.private import Guarantee, PrivateSteps, Promise
from metier.training.settings import ObjectiveSettings
from metier.training.taught import prepare_labels
from training.test_labels import ROWS, numbered, related
from training.test_labels_methods import settings_of
from training.test_sharded import rows, run

COLORS = ("red", "green", "light blue")
STATED: dict[str, Any] = {
    "classification": {"labels": COLORS},
    "multi-label": {"labels": ("pen", "lamp", "table", "door", "zh")},
    "tagging": {"labels": ("Color", "Thing")},
    "regression": {"centre": 6.0, "spread": 3.0},
    "pair": {},
}
GIVEN = Guarantee(8.0, 1e-5, "rdp", 0.0, 0.5, 400, 0.3, 10, "subject")


def people(rows: list[Record], count: int = 9) -> list[Record]:
    """Return the records as those of so many people, several of each."""
    source = Source("visits.jsonl", "0" * 64, "line 1", "CC0-1.0")
    return [replace(row, subject=f"p{place % count}", source=replace(source, position=f"line {place}")) for place, row in enumerate(rows)]


def settings(method: str, task: str, **more: Any) -> TrainingSettings:
    privacy = {"epsilon": 8.0, "units": 4, "accountant": "rdp"} | STATED[task] | more.pop("privacy", {})
    return settings_of(method, **({"task": task, "validation": {"times": 0}, "privacy": privacy} | more))


def rows_of(task: str) -> list[Record]:
    return people({"regression": numbered, "pair": related}.get(task, list)(ROWS))


@pytest.mark.parametrize(
    ("method", "kind", "task"),
    [
        ("full", "encoder", "classification"),
        ("lora", "encoder", "tagging"),
        ("dora", "base", "classification"),
        ("partial", "encoder", "multi-label"),
        ("adapter", "encoder", "regression"),
        ("prompt", "base", "pair"),
    ],
)
def test_the_gradient_is_the_sum_of_clipped_ones_of_adapter_and_head(
    method: str, kind: str, task: str, make_dataset: MakeDataset, store: Store, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = prepare_labels(
        make_dataset(train=rows_of(task)),
        request.getfixturevalue(kind),
        settings(method, task),
        task,
        workspace=store.workspace("x"),  # type: ignore[arg-type]
    )
    trainer = made.trainer
    model, parameters, taught = trainer.model.eval(), trainer.parameters, trainer.course.taught
    assert any(name.startswith(("classifier", "score")) for name in parameters)
    (tmp_path / "secret").write_bytes(b"s" * 32)
    private = PrivateSteps(model, Promise(replace(GIVEN, units=4), tmp_path / "secret"), parameters, Accelerator(cpu=True))
    objective = trainer.objective(ObjectiveSettings())
    units = [(0, 9), (1,), (2, 11)]
    gathered = private.with_objective(objective)(taught, units, 0)
    expected = {name: torch.zeros_like(item) for name, item in parameters.items()}
    norms, losses = [], []
    for unit in units:
        row = row_of([taught.examples[place] for place in unit])
        value = objective(model, row) / len(row.labels)
        losses.append(value.item())
        gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
        norms.append(math.sqrt(sum(float(item.square().sum()) for item in gradients if item is not None)))
        for name, item in zip(parameters, gradients, strict=True):
            if item is not None:
                expected[name] += item * min(1.0, 0.3 / norms[-1]) / 2
    assert max(norms) > 0.3, "something was clipped"
    assert gathered.loss == pytest.approx(sum(losses) / 3, rel=1e-5)
    for name, item in expected.items():
        gradient = parameters[name].grad
        assert gradient is not None
        assert torch.allclose(gradient, item, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("task", STATED)
def test_a_private_training_of_labels_moves_everything_and_says_what_it_promises(task: Any, make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    records = rows_of(task)
    made, trained = train(make_dataset(train=records), encoder, settings("lora", task, epochs=1.0), workspace=store.workspace("private"))
    said = made.facts["privacy"]
    accountant = RDPAccountant()
    accountant.history = [(said["noise_multiplier"], said["sample_rate"], said["steps"])]
    assert said["epsilon"] == pytest.approx(accountant.get_epsilon(delta=said["delta"]))
    assert (said["units"], said["unit"], said["unusable_draws"]) == (9, "subject", 0)
    assert said["epsilon"] <= 8.01
    labelling = read_labelling(trained.path)
    assert (labelling.labels, labelling.stated) == (STATED[task].get("labels", ()), True)
    assert (labelling.centre, labelling.spread) == {"regression": (6.0, 3.0), "pair": (0.5, 1.0)}.get(task, (0.0, 1.0))
    before = prepare_labels(make_dataset(train=records), encoder, settings("lora", task, epochs=1.0), task, workspace=store.workspace("fresh")).trainer.model
    after: Any = Labeller.open(encoder, trained.path, dtype=torch.float32).model
    assert not torch.equal(before.classifier.weight, after.classifier.weight)
    learnt = dict(after.named_parameters())
    assert all(not torch.equal(item, learnt[name]) for name, item in before.named_parameters() if name.endswith(("lora_a", "lora_b")))


def test_what_one_person_s_records_say_is_nowhere_in_what_the_head_answers(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    common = people(ROWS)
    odd = replace(common[0], id="a" * 64, label="purple", subject="alone")
    found = []
    for name, records in (("with", [*common, odd]), ("without", common)):
        made, trained = train(make_dataset(train=records), encoder, settings("lora", "classification", epochs=0.5), workspace=store.workspace(name))
        found.append(trained.file("labels.json").read_bytes())
        dropped = [(drop.record_id, drop.reason) for drop in read_drops(made.file("drops.parquet"))]
        assert dropped == ([(odd.id, "unknown_label")] if name == "with" else [])
    assert found[0] == found[1]
    assert json.loads(found[0])["prior"] == ["red"], "the first that is stated, whatever is frequent"


def test_given_class_weights_are_not_scaled_by_what_the_records_hold() -> None:
    given = ObjectiveSettings(class_weights={"b": 2.0})
    for examples in ([Labelled((1,), (0,), (1,))], [Labelled((1,), (0,), (0,))] * 5):
        found = class_weights(given, Labelling("classification", ("a", "b"), 8, stated=True), examples)
        assert found is not None
        assert found.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("place", [0, 1])
def test_a_person_whose_loss_is_no_number_adds_nothing_and_the_rest_is_learnt(
    place: int, make_dataset: MakeDataset, store: Store, encoder: Base, tmp_path: Path
) -> None:
    made = prepare_labels(make_dataset(train=people(ROWS)), encoder, settings("lora", "classification"), "classification", workspace=store.workspace("x"))
    trainer = made.trainer
    taught, plain = trainer.course.taught, trainer.objective(ObjectiveSettings())
    bad = taught.examples[place].tokens
    trainer.model.eval()

    def objective(model: Any, row: Row) -> torch.Tensor:
        found = plain(model, row)
        return found * math.nan if tuple(row.tokens[: len(bad)].tolist()) == bad else found

    (tmp_path / "secret").write_bytes(b"s" * 32)
    private = PrivateSteps(trainer.model, Promise(replace(GIVEN, units=4), tmp_path / "secret"), trainer.parameters, Accelerator(cpu=True))
    steps = []
    for units in ([(0,), (1,), (2,)], [(1 - place,), (2,)], [(place,)]):
        gathered = private.with_objective(objective)(taught, units, 0)
        steps.append((gathered, [parameter.grad.clone() for parameter in trainer.parameters.values()]))
    (mixed, ours), (clean, theirs), (alone, nothing) = steps
    assert (mixed.unusable, clean.unusable, alone.unusable) == (1, 0, 1)
    assert mixed.loss == pytest.approx(clean.loss)
    assert alone.loss == 0
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert not any(bool(gradient.any()) for gradient in nothing), "no noise was promised here"
    with torch.no_grad():
        next(iter(trainer.parameters.values())).view(-1)[0] = math.inf
    with pytest.raises(ModelError, match="no longer numbers after 7 steps"):
        private.with_objective(objective)(taught, [(2,)], 7)


def test_a_record_that_breaks_its_loss_blocks_no_private_training(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    records = rows_of("regression")
    records[3] = replace(records[3], label="1e200", subject="alone")
    dataset = make_dataset(train=records)
    chosen, workspace = settings("lora", "regression", epochs=2.0), store.workspace("private")
    workspace.folder.mkdir(parents=True, exist_ok=True)
    # Draws that take that record: those of a secret of their own may pass it by.
    (workspace.folder / "chance.secret").write_bytes(b"s" * 32)
    made, trained = train(dataset, encoder, chosen, workspace=workspace)
    steps = [json.loads(line) for line in made.file("metrics.jsonl").read_text().splitlines()]
    assert made.facts["privacy"]["unusable_draws"] == sum(row["unusable"] for row in steps) > 0
    assert all(math.isfinite(row["loss"]) for row in steps)
    answers = Labeller.open(encoder, trained.path, dtype=torch.float32).predict([row.text for row in records])
    assert all(answer.value is not None and math.isfinite(answer.value) for answer in answers)


def test_two_processes_learn_privately_what_one_does(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    given = settings("lora", "classification", epochs=1.0).model_dump(mode="json", exclude_unset=True)
    case = {"dataset": make_dataset(train=people(ROWS)).digest, "base": str(encoder.folder), "settings": given}
    left = {}
    for count in (1, 2):
        folder = store.workspace(f"private-{count}").folder
        folder.mkdir(parents=True, exist_ok=True)
        # The same draws and noise: else only what is promised would be the same.
        (folder / "chance.secret").write_bytes(b"s" * 32)
        left[count] = run(store, {"private": case}, "replicated", count, apart=f"-{count}")["private"]
    one, two = ([row["loss"] for row in rows(store, left[count])] for count in (1, 2))
    assert one == pytest.approx(two, abs=1e-5)
    assert len(set(one)) > 1
    tensors = [load_file(store.open("adapter", left[count][1]).file("adapter_model.safetensors")) for count in (1, 2)]
    for name, tensor in tensors[0].items():
        torch.testing.assert_close(tensor, tensors[1][name], atol=1e-4, rtol=1e-3)


HEAD = "validation: {times: 0}, task: "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classification, privacy: {epsilon: 3.0}", "privacy.labels names too few labels of classification"),
        ("classification, privacy: {epsilon: 3.0, labels: [a]}", "privacy.labels names too few"),
        ("tagging, privacy: {epsilon: 3.0, labels: [a, a]}", "names a label twice"),
        ("regression, privacy: {epsilon: 3.0, centre: 1.0}", "privacy.centre and privacy.spread are not stated"),
        ("pair, privacy: {epsilon: 3.0, labels: [a, b]}", "privacy.labels is read by nothing with the task pair"),
        ("classification, privacy: {labels: [a, b]}", "privacy.labels is read by nothing without privacy.epsilon"),
        ("generation, privacy: {epsilon: 3.0, spread: 1.0}", "privacy.spread is read by nothing with the task generation"),
        ("classification, privacy: {epsilon: 3.0, labels: [a, b]}, objectives: {class_weights: balanced}", "they would be counted in the records"),
        ("classification, privacy: {epsilon: 3.0, labels: [a, b]}, objectives: {distillation: {teacher: t}}", "objectives.distillation"),
        ("classification, privacy: {epsilon: 3.0, labels: [a, b]}, objectives: {ewc: 1.0}", "objectives.ewc"),
    ],
)
def test_what_a_guarantee_of_labels_would_not_cover_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "data.jsonl").write_text('{"a": "b"}\n')
    head = "metier: 1\nproject: p\npack: example\nsources:\n  - {path: data.jsonl, licence: CC0-1.0, columns: {text: a, label: a}}\n"
    (tmp_path / "metier.yaml").write_text(f"{head}training: {{{HEAD}{text}}}\n")
    with pytest.raises(ConfigError) as caught:
        load_project(tmp_path)
    assert said in str(caught.value)


def test_choosing_by_a_score_is_refused_even_if_nothing_is_measured(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"validation\.by: score"):
        TrainingSettings.model_validate({"task": "tagging", "validation": {"times": 0, "by": "score"}, "privacy": {"epsilon": 3.0, "labels": ("a",)}})
