"""Stages one after the other: their records, their order, their rates; interrupted is uninterrupted; validation by group."""

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
from metier.artifacts import Artifact
from metier.errors import InputError, ModelError
from metier.models import Base, Chat, load_tokenizer, load_weights
from metier.models.lora import LoraLinear
from metier.records import Record, Source, identify
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import encode_records, row_of
from metier.training.checking import Checked, check
from metier.training.curriculum import plan_course
from metier.training.gather import Summing
from metier.training.loop import run_steps
from metier.training.objectives import answer_losses, cross_entropy
from metier.training.trainer import Trainer
from training.observing import Said, refused


def told(task: str, count: int, language: str = "zh") -> list[Record]:
    rows = [conversation(f"{task}第{number}号在哪里？", f"{number}在{'左右'[number % 2]}边") for number in range(count)]
    source = Source(f"{task}/{language}.md", "0" * 64, "line 1", "CC0-1.0")
    rows = [replace(row, task=task, language=language, domain="house", source=source) for row in rows]
    return [replace(row, id=identify(row)) for row in rows]


BOOKS, TALKS = told("book", 12), told("talk", 6, "en")


BATCH = {"row_tokens": 128, "maximum_tokens": 128}


def settings(*stages: dict[str, Any], **more: Any) -> TrainingSettings:
    common = {
        "adaptation": {"rank": 4},
        "precision": "float32",
        "learning_rate": 5e-3,
        "batch": BATCH,
        "validation": {"times": 2},
        "checkpoint": {"steps": 1},
    }
    return TrainingSettings.model_validate_json(json.dumps(common | {"stages": list(stages)} | more))


TWO = ({"name": "books", "records": {"task": ["book"]}, "epochs": 2}, {"name": "talks", "records": {"source": ["talk/*.md"]}, "learning_rate": 1e-3})


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=[*BOOKS[:10], *TALKS[:4]], validation=[*BOOKS[10:], *TALKS[4:]])


def rows_of(run: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]


def test_a_stage_learns_from_its_own_records_by_its_own_rate(dataset: Artifact, base: Base, store: Store) -> None:
    taught = encode_records([*BOOKS, *TALKS], Chat(load_tokenizer(base)), 128)
    course = plan_course(taught, taught, settings(*TWO))
    first, second = course.stages
    tasks = [{taught.origins[index].task for step in stage.plan.steps for row in step for index in row} for stage in course.stages]
    assert tasks == [{"book"}, {"talk"}]
    assert Counter(index for step in first.plan.steps for row in step for index in row) == dict.fromkeys(range(12), 2)
    assert (first.start, first.end, second.start) == (0, len(first.plan.steps), first.end)
    assert list(course.plan.steps) == [*first.plan.steps, *second.plan.steps]
    run, _ = train(dataset, base, settings(*TWO), workspace=store.workspace("two"))
    rows = rows_of(run)
    peaks = {name: max(row["learning_rate"] for row in rows if row["stage"] == name) for name in ("books", "talks")}
    assert peaks == {"books": 5e-3, "talks": 1e-3}
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    ended = run.facts["stages"]
    steps = Counter(row["stage"] for row in rows)
    assert [(stage["name"], stage["examples"], stage["steps"]) for stage in ended] == [("books", 10, steps["books"]), ("talks", 4, steps["talks"])]
    assert run.facts["unused_examples"] == 0


def test_each_stage_is_judged_on_its_own_validation_records_and_all_groups_are_shown(dataset: Artifact, base: Base, store: Store) -> None:
    run, _ = train(dataset, base, settings(*TWO), workspace=store.workspace("judged"))
    checks = [row for row in rows_of(run) if "validation_loss" in row]
    for row in checks:
        assert set(row["validation_by_group"]) == {"book", "talk"}
        assert row["validation_loss"] == pytest.approx(row["validation_by_group"]["book" if row["stage"] == "books" else "talk"])
        assert sum(row["validation_by_length"].values()) > 0
        assert row["validation_error"] > 0
    table = {(row["stage"], row["task"]): row for row in run.facts["interference"]}
    assert set(table) == {(stage, task) for stage in ("books", "talks") for task in ("book", "talk")}
    for task in ("book", "talk"):
        assert table["books", task]["after"] == table["talks", task]["before"]
    assert table["books", "book"]["change"] == pytest.approx(table["books", "book"]["after"] - table["books", "book"]["before"]) != 0
    ended = next(row for row in checks if row["step"] == run.facts["stages"][0]["best_step"])
    assert table["books", "talk"]["after"] == pytest.approx(ended["validation_by_group"]["talk"], rel=1e-6)
    best = min((row["validation_loss"], row["step"]) for row in checks if row["stage"] == "talks")
    assert (run.facts["validation_loss"], run.facts["best_step"]) == best


@pytest.mark.parametrize("method", ["lora", "adalora", "full"])
def test_stages_interrupted_at_any_step_are_the_same_training(dataset: Artifact, base: Base, store: Store, method: str) -> None:
    sizes = {} if method == "full" else {"adaptation": {"rank": 4, "dropout": 0.2}}
    own = {"optimizer": {"weight_decay": 0.3, "betas": [0.7, 0.9], "schedule": "constant"}}
    stages = (TWO[0], TWO[1] | own) if method == "full" else (TWO[0], TWO[1] | own | {"dropout": 0.0})
    chosen = settings(*stages, method=method, **sizes) if sizes else settings(*stages, method=method, adaptation={})
    run, adapter = train(dataset, base, chosen, workspace=store.workspace("straight"))
    losses = [row["loss"] for row in rows_of(run)]
    turn = next(place for place, row in enumerate(rows_of(run)) if row["stage"] == "talks")
    for step in (1, turn, turn + 1, len(losses)):
        name = f"broken-{step}"
        with pytest.raises(InterruptedError):
            train(dataset, base, chosen, workspace=store.workspace(name, progress=Said(step)))
        again, same = train(dataset, base, chosen, workspace=store.workspace(name))
        assert [row["loss"] for row in rows_of(again)] == losses
        assert same.file("adapter_model.safetensors").read_bytes() == adapter.file("adapter_model.safetensors").read_bytes()
        assert again.facts["stages"] == run.facts["stages"]


def test_a_stage_that_stops_early_hands_its_best_adapter_to_the_next(dataset: Artifact, base: Base, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wild = {"name": "wild", "epochs": 30, "learning_rate": 0.3, "optimizer": {"schedule": "constant"}}
    tame = {"name": "tame", "epochs": 1, "learning_rate": 1e-6}
    seen: dict[str, float] = {}
    entered = Trainer._enter

    def enter(self: Trainer, stage: Any) -> None:
        checked = check(self.model.eval(), self.course.checks, answer_losses, row_tokens=128, accelerator=Accelerator(cpu=True), seen=lambda _: None)
        seen["handed"], seen["best"] = checked.mean(), self.position.best_loss or math.nan
        entered(self, stage)

    monkeypatch.setattr(Trainer, "_enter", enter)
    run, _ = train(dataset, base, settings(wild, tame, validation={"times": 15, "patience": 1}), workspace=store.workspace("wild"))
    first, second = run.facts["stages"]
    assert first["stopped_early"]
    assert first["best_step"] < first["steps"]
    assert seen["handed"] == pytest.approx(seen["best"], abs=1e-5)
    assert second["validation_loss"] == pytest.approx(seen["best"], rel=0.02)


def test_a_stage_s_shares_are_drawn_by_the_power_of_sizes_and_no_record_waits_twice(base: Base) -> None:
    taught = encode_records([*told("book", 60), *told("talk", 15)], Chat(load_tokenizer(base)), 128)
    stage = {"name": "mixed", "epochs": 4, "shares": {"by": "task", "alpha": 0.5}}
    (found,) = plan_course(taught, taught, settings(stage)).stages
    counted = Counter(index for step in found.plan.steps for row in step for index in row)
    by_task = Counter(taught.origins[index].task for index in counted.elements())
    assert by_task == {"book": 200, "talk": 100}, "sqrt(60) to sqrt(15) is two to one, of 4 x 75 examples"
    spread = {task: {counted[index] for index, origin in enumerate(taught.origins) if origin.task == task} for task in ("book", "talk")}
    assert spread == {"book": {3, 4}, "talk": {6, 7}}
    whole = settings(batch=BATCH | {"shares": {"by": "task", "alpha": 0.5}}, epochs=4.0)
    (found,) = plan_course(taught, taught, whole).stages
    assert Counter(taught.origins[index].task for index in found.plan.steps.places) == by_task, "the same without stages"
    stages = plan_course(taught, taught, settings({"name": "a"}, {"name": "b", "shares": {"alpha": 1}}, batch=BATCH | {"shares": {"alpha": 0}})).stages
    seen = [Counter(taught.origins[index].task for index in stage.plan.steps.places) for stage in stages]
    assert seen == [{"book": 38, "talk": 37}, {"book": 60, "talk": 15}], "a stage without shares takes those of the training"
    only = {"name": "only", "epochs": 1, "shares": {"weights": {"talk": 0}}}
    (found,) = plan_course(taught, taught, settings(only)).stages
    assert {taught.origins[index].task for step in found.plan.steps for row in step for index in row} == {"book"}


def test_stages_that_fit_nothing_are_refused_together_with_what_there_is(dataset: Artifact, base: Base, store: Store) -> None:
    wrong = ({"name": "a", "records": {"task": ["bok"]}}, {"name": "b", "records": {"language": ["fr"]}}, {"name": "c", "shares": {"weights": {"tlk": 2}}})
    with pytest.raises(InputError) as caught:
        train(dataset, base, settings(*wrong), workspace=store.workspace("nothing"))
    said = str(caught.value)
    assert "no training example fits the stage 'a'" in said
    assert "there are task: book, talk" in said
    assert "there are language: en, zh" in said
    assert "there is no group 'tlk'" in said
    assert "training.stages.1.records" in said
    assert not (store.root / "artifacts" / "run").exists()


def test_records_that_belong_to_no_stage_are_counted(dataset: Artifact, base: Base, store: Store) -> None:
    run, _ = train(dataset, base, settings(TWO[0]), workspace=store.workspace("part"))
    assert run.facts["unused_examples"] == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{epochs: 3, stages: [{name: a}]}", "epochs is not used where there are stages"),
        ("{stages: [{name: a}, {name: a}]}", "two are called a"),
        ("{method: full, stages: [{name: a, dropout: 0.1}]}", "does not use dropout"),
        ("{batch: {order: dataset}, stages: [{name: a, shares: {alpha: 0.5}}]}", "take one of them out"),
        ("{stages: [{name: a, rank: 8}]}", "rank"),
    ],
)
def test_stages_that_contradict_themselves_are_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refused(tmp_path, text)


def test_the_error_of_a_mean_is_that_of_drawing_examples() -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(1, 9, (400,), generator=generator)
    losses = labels * (1 + torch.rand(400, generator=generator))
    found = Checked(tuple(losses.tolist()), tuple(labels.tolist()), tuple([8] * 400))
    drawn = torch.randint(0, 400, (2000, 400), generator=generator)
    means = losses[drawn].sum(dim=1) / labels[drawn].sum(dim=1)
    assert found.error() == pytest.approx(float(means.std()), rel=0.1)
    assert found.mean() == pytest.approx(float(losses.sum() / labels.sum()))


def test_every_label_knows_its_example(base: Base) -> None:
    examples = encode_records([*BOOKS[:3], *TALKS[:2]], Chat(load_tokenizer(base)), 128).examples
    row = row_of(examples)
    counts = [sum(example.learn[1:]) for example in examples]  # type: ignore[union-attr]
    assert row.owners.tolist() == [place for place, count in enumerate(counts) for _ in range(count)]


def test_a_loss_that_is_no_number_names_the_records_and_nothing_of_their_text(base: Base) -> None:
    from metier.models.lora import attach

    taught = encode_records(BOOKS[:3], Chat(load_tokenizer(base)), 128)
    model = load_weights(base, torch.float32)
    attach(model, rank=2, alpha=4, dropout=0.0, targets="all-linear", seed=0)
    layer = next(module for module in model.modules() if isinstance(module, LoraLinear))
    with torch.no_grad():
        layer.lora_b.fill_(math.nan)
    chosen = settings({"name": "all"}, batch={"row_tokens": 128, "rows": 3, "maximum_tokens": 128})
    (stage,) = plan_course(taught, taught, chosen).stages
    learnt = [item for item in model.parameters() if item.requires_grad]
    gather = Summing(model, cross_entropy, learnt, Accelerator(cpu=True), seed=0)
    steps = run_steps(taught, stage.plan, start=0, settings=stage.settings, gather=gather, optimizer=torch.optim.AdamW(learnt))
    with pytest.raises(ModelError) as caught:
        next(steps)
    assert all(record.id in str(caught.value) for record in BOOKS[:3])
    assert "在哪里" not in str(caught.value)


def test_a_stage_that_begins_takes_no_checkpoint_of_the_one_before(dataset: Artifact, base: Base, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = Trainer._enter
    there: list[tuple[set[str], set[str]]] = []

    def enter(self: Trainer, stage: Any) -> None:
        before = {path.name for path in self.checkpoints.iterdir()}
        entered(self, stage)
        there.append((before, {path.name for path in self.checkpoints.iterdir()}))

    monkeypatch.setattr(Trainer, "_enter", enter)
    train(dataset, base, settings(*TWO), workspace=store.workspace("kept"))
    ((before, after),) = there
    newest = max(before)
    assert {newest, f"{newest}-0001"} <= after
