"""The plan of a training for labels: what is counted without values is what a real step takes, and the figures add up."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from conftest import MakeDataset
from metier.artifacts import Artifact
from metier.cli.planned import show_plan
from metier.errors import InputError
from metier.models import Base
from metier.models.heads import load_with_head
from metier.progress import SILENT
from metier.records import Record, Span, identify
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import row_at
from metier.training.planning import Aims, Ask, advise
from metier.training.planning.decide import Situation, decide_labels
from metier.training.planning.labels import LabelCase
from metier.training.planning.memory import Means
from metier.training.planning.traced import without_values
from metier.training.planning.work import row_shape
from metier.training.taught import let_learn
from training.observing import saved_by_autograd

COLOURS = ("red", "green", "blue")
METHODS = ["full", "lora", "dora", "adalora", "adapter", "parallel-adapter", "partial"]


def record(number: int, task: str) -> Record:
    colour = COLOURS[number % 3]
    text = f"the {colour} door of room {number}" + " is open and wide" * (number % 5)
    label: str | None = {"regression": str(number % 7), "pair": str(number % 2)}.get(task, colour)
    pair = "a wall" if task == "pair" else None
    spans = (Span(4, 4 + len(colour), "Colour"),) if task == "tagging" else ()
    made = Record("", text=text, label=None if task == "tagging" else label, spans=spans, language="en", task="doors", metadata={"pair": pair} if pair else {})
    if task == "multi-label":
        made = replace(made, label=None, metadata={"labels": [colour]})
    return replace(made, id=identify(made))


def case(base: Base, dataset: Artifact, task: str, **more: Any) -> LabelCase:
    given: dict[str, Any] = {"task": task, "epochs": 2, "precision": "float32", "batch": {"row_tokens": 96}} | more
    return LabelCase(dataset, base, TrainingSettings.model_validate_json(json.dumps(given)), None, SILENT)


@pytest.fixture
def doors(make_dataset: MakeDataset) -> Any:
    def make(task: str, count: int = 24) -> Artifact:
        rows = [record(number, task) for number in range(count)]
        return make_dataset(train=rows, validation=[record(number, task) for number in range(100, 112)])

    return make


def real(made: LabelCase, method: str, row: Any, dtype: torch.dtype) -> tuple[int, int, int]:
    """Return kept bytes, FLOPs of both ways and trained numbers of a real step."""
    effective = made.effective(made.method(method), dtype)
    model: Any = load_with_head(made.base, made.labels, dtype, seed=0, frozen=method != "full")
    let_learn(model, effective, 0)
    model.train()
    with FlopCounterMode(display=False) as counter:
        with saved_by_autograd(model) as found:
            loss = made.objective()(model, row)
        loss.backward()
    return sum(found.values()), counter.get_total_flops(), sum(item.numel() for item in model.parameters() if item.requires_grad)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_what_is_counted_without_values_is_what_a_real_step_takes(kind: str, method: str, dtype: torch.dtype, doors: Any, encoder: Base, base: Base) -> None:
    if method == "full" and dtype == torch.bfloat16:
        pytest.skip("weights that are all trained are kept in fp32")
    made = case(encoder if kind == "encoder" else base, doors("classification"), "classification")
    machine = replace(made.machine, precision=dtype.itemsize)
    taken = made.taken(made.method(method), machine)
    rows = list(made.course.plan.steps.rows)
    assert len({row_shape(made.course.taught, row) for row in rows}) > 2
    found = [real(made, method, row_at(made.course.taught, row), dtype) for row in rows[:4]]
    assert {trained for *_, trained in found} == {taken.trained}
    for row, (_, flops, _) in zip(rows, found, strict=False):
        assert taken.work.of([row_shape(made.course.taught, row)])[1] == pytest.approx(flops, rel=1e-6)
    shape, counted = taken.largest
    place = next(place for place, row in enumerate(rows) if row_shape(made.course.taught, row) == shape)
    kept = real(made, method, row_at(made.course.taught, rows[place]), dtype)[0]
    # In bf16 a processor's layer norm keeps its means in bf16, and in fp32 where there are no values.
    assert counted.kept == (kept if dtype == torch.float32 else pytest.approx(kept, rel=0.02))
    assert counted.kept >= max(kept for kept, *_ in found)


@pytest.mark.parametrize("task", ["tagging", "regression"])
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_spans_and_numbers_are_counted_alike(task: str, kind: str, doors: Any, encoder: Base, base: Base) -> None:
    made = case(encoder if kind == "encoder" else base, doors(task), task)
    taken = made.taken(made.asked(), made.machine)
    row = next(iter(made.course.plan.steps.rows))
    kept, flops, trained = real(made, made.asked().name, row_at(made.course.taught, row), torch.float32)
    assert taken.trained == trained
    assert taken.work.of([row_shape(made.course.taught, row)])[1] == pytest.approx(flops, rel=1e-6)
    assert taken.largest[1].kept >= kept


def _searcher(texts: Sequence[str]) -> Any:
    """Find the text that shares most words with the question."""
    words = [set(text.split()) for text in texts]
    return lambda query, many: sorted(range(len(texts)), key=lambda place: -len(words[place] & set(query.split())))[:many]


def test_the_whole_plan_measures_counts_and_decides(doors: Any, encoder: Base, store: Store) -> None:
    dataset = doors("classification", 60)
    settings = TrainingSettings.model_validate_json(json.dumps({"task": "classification", "epochs": 2, "batch": {"row_tokens": 64}}))
    ask = Ask(Aims(general=False), prices={"here": 2.0}, items=12)
    plan = advise(dataset, encoder, settings, ask, searcher=_searcher, cache=store.root / "plan")
    run, _ = train(dataset, encoder, settings, workspace=store.workspace("run"))
    assert plan["estimates"][0]["trainable_parameters"] == run.facts["trainable_parameters"]
    assert (plan["data"]["steps"], plan["data"]["tokens"]) == (run.facts["steps"], run.facts["tokens"])
    assert plan["decision"]["method"]["name"] == "full"
    assert plan["calibration"]["steps"] > 0
    assert plan["estimates"][0]["calibrated"] is True
    assert plan["estimates"][0]["cost"][0] == pytest.approx(2.0 * plan["estimates"][0]["seconds"][0] / 3600)
    (asked,) = plan["prompting"]
    assert asked["items"] == 12
    assert asked["scores"]["copied"]["value"] == 1.0, "every text names its colour"
    assert asked["scores"]["frequent"]["value"] == pytest.approx(4 / 12)
    assert set(asked["scores"]) == {"copied", "encoded", "frequent"}
    assert asked["differences"]["copied"]["value"] == pytest.approx(8 / 12)
    assert plan["conclusion"]
    page = io.StringIO()
    show_plan(Console(file=page, width=200), "doors", plan)
    said = page.getvalue()
    assert "would copying do? (good enough: 0.80 right)" in said
    assert "nearest by vectors copied" in said
    assert "Decision: train by full." in said
    assert "keys and values" not in said, "nothing is generated"
    kept = sorted((store.root / "plan").iterdir())
    again = advise(dataset, encoder, settings, ask, searcher=_searcher, cache=store.root / "plan")
    assert again["calibration"] == plan["calibration"], "what was measured is found again"
    assert sorted((store.root / "plan").iterdir()) == kept
    dry = advise(dataset, encoder, settings, replace(ask, measure=False), searcher=_searcher)
    assert (dry["calibration"], dry["prompting"]) == (None, None)
    assert dry["estimates"][0]["flops"] == plan["estimates"][0]["flops"]


def test_a_decoder_gets_an_update_and_what_cannot_be_counted_is_refused(doors: Any, base: Base) -> None:
    made = case(base, doors("classification"), "classification")
    decision = made.decide(Aims(general=False), None)
    assert (decision.method.name, decision.method.rank) == ("lora", 8)
    assert "decoder" in decision.reasons[0]
    with pytest.raises(InputError, match="what prefix takes for labels cannot be counted"):
        made.taken(made.method("prefix"), made.machine)


def test_the_rules_for_labels() -> None:
    fits, tight = Situation(100, False, 10, 5, 1.0), Situation(100, False, 10, 50, 1.0)
    assert decide_labels(fits, Aims(general=False), rank=8).method.name == "full"
    late = decide_labels(tight, Aims(general=False), rank=8)
    assert (late.method.name, late.method.rank) == ("lora", 8)
    own = decide_labels(fits, Aims(general=False, method="dora", rank=4), rank=8)
    assert (own.method.name, own.method.rank, own.overridden) == ("dora", 4, True)
    assert any("by the rules it would be full" in reason for reason in own.reasons)
    assert decide_labels(None, Aims(general=False), rank=16).method.rank == 16


def test_gradients_lie_beside_activations_from_the_second_row_on(doors: Any, encoder: Base) -> None:
    made = case(encoder, doors("classification"), "classification")
    taken = made.taken(made.asked(), made.machine)
    one, two = (taken.memory(Means(4, rows)) for rows in (1, 2))
    assert two.gradients == 4 * taken.trained
    assert one.gradients == max(0, 4 * taken.trained - taken.largest[1].kept)
    assert (one.weights, one.trained, one.optimiser) == (4 * taken.every, 0, 8 * taken.trained), "trained weights are the model's own"


def test_a_row_without_values_keeps_its_shape(doors: Any, encoder: Base) -> None:
    made = case(encoder, doors("classification"), "classification")
    row = row_at(made.course.taught, next(iter(made.course.plan.steps.rows)))
    hollow = without_values(row)
    assert (hollow.lengths, hollow.tokens.shape, hollow.tokens.is_meta) == (row.lengths, row.tokens.shape, True)
