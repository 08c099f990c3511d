"""How much each label counts: by given weights, by frequency; smoothed and focal losses of labels are their formulas."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from conftest import MakeDataset
from metier.errors import InputError
from metier.models import Base, load_tokenizer
from metier.models.heads import Layout, label_scores, layout_of, load_with_head
from metier.models.labels import Labelling
from metier.models.words import TextReader
from metier.records import Record, Span, identify
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import Row, row_of
from metier.training.classweights import check_objectives, class_weights
from metier.training.examples import Examples
from metier.training.labelled import encode_labelled, fit_labelling
from metier.training.objectives import label_objective
from metier.training.scoring import f1_of
from metier.training.settings import ObjectiveSettings

TEXTS = [
    ("The red pen.", "red"),
    ("红色的笔。", "red"),
    ("A red door.", "red"),
    ("A green door.", "green"),
    ("绿色的门。", "green"),
    ("The blue lamp.", "blue"),
]


def record(text: str, label: str | None = None, spans: tuple[Span, ...] = ()) -> Record:
    made = Record(id="", text=text, label=label, spans=spans)
    return Record(id=identify(made), text=text, label=label, spans=spans)


ROWS = [record(*item) for item in TEXTS]


def prepared(encoder: Base, task: Any, rows: list[Record]) -> tuple[torch.nn.Module, Layout, Labelling, Examples, Row]:
    labelling = fit_labelling(rows, task, 64)
    model = load_with_head(encoder, labelling, torch.float32, seed=0, frozen=False)
    layout = layout_of(model, labelling)
    taught = encode_labelled(rows, TextReader(load_tokenizer(encoder)), labelling, layout)
    return model, layout, labelling, taught, row_of(taught.examples)


def scores_of(model: torch.nn.Module, layout: Layout, row: Row) -> torch.Tensor:
    return label_scores(model, layout, row.tokens, row.positions, lengths=row.lengths, sources=row.sources, kinds=row.kinds)


def test_balanced_weights_make_every_class_count_alike(encoder: Base) -> None:
    _, _, labelling, taught, row = prepared(encoder, "classification", ROWS)
    weights = class_weights(ObjectiveSettings(class_weights="balanced"), labelling, taught.examples)
    assert weights is not None
    assert labelling.labels == ("blue", "green", "red")
    assert weights.tolist() == pytest.approx([2, 1, 2 / 3])
    counted = torch.bincount(row.labels)
    assert (weights * counted).tolist() == pytest.approx([2, 2, 2])


def test_given_weights_keep_their_proportions_and_average_one(encoder: Base) -> None:
    model, layout, labelling, taught, row = prepared(encoder, "classification", ROWS)
    settings = ObjectiveSettings(class_weights={"blue": 4.0})
    weights = class_weights(settings, labelling, taught.examples)
    assert weights is not None
    assert (weights[0] / weights[1]).item() == pytest.approx(4)
    assert weights[row.labels].mean().item() == pytest.approx(1)
    found = label_objective(labelling, layout, settings, weights=weights)(model, row)
    expected = (cross_entropy(scores_of(model, layout, row), row.labels, reduction="none") * weights[row.labels]).sum()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert class_weights(ObjectiveSettings(), labelling, taught.examples) is None


def test_smoothing_and_focal_of_labels_are_their_formulas(encoder: Base) -> None:
    model, layout, labelling, _, row = prepared(encoder, "classification", ROWS)
    scores = scores_of(model, layout, row)
    own = cross_entropy(scores, row.labels, reduction="none")
    found = label_objective(labelling, layout, ObjectiveSettings(smoothing=0.1))(model, row)
    assert found.item() == pytest.approx((0.9 * own + 0.1 * -scores.log_softmax(dim=1).mean(dim=1)).sum().item(), rel=1e-5)
    found = label_objective(labelling, layout, ObjectiveSettings(focal=2.0))(model, row)
    assert found.item() == pytest.approx(((1 - torch.exp(-own)) ** 2 * own).sum().item(), rel=1e-5)


def test_of_several_labels_a_weight_is_for_those_that_apply(encoder: Base) -> None:
    rows = [record(text, label) for text, label in (("a pen", "x|y"), ("a door", "x"), ("a lamp", "x"), ("a book", "x"))]
    made = [Record(id=row.id, text=row.text, label=row.label, metadata={"labels": (row.label or "").split("|")}) for row in rows]
    model, layout, labelling, taught, row = prepared(encoder, "multi-label", made)
    weights = class_weights(ObjectiveSettings(class_weights="balanced"), labelling, taught.examples)
    assert weights is not None
    assert weights.tolist() == [0, 3]
    scores = scores_of(model, layout, row)
    each = torch.nn.functional.binary_cross_entropy_with_logits(scores, row.labels, reduction="none")
    heavy = torch.where(row.labels > 0, each * weights, each)
    found = label_objective(labelling, layout, ObjectiveSettings(class_weights="balanced"), weights=weights)(model, row)
    assert found.item() == pytest.approx(heavy.mean(dim=1).sum().item(), rel=1e-5)


def test_words_outside_of_spans_can_count_less(encoder: Base) -> None:
    rows = [record("The red pen is here.", spans=(Span(4, 7, "Color"),)), record("绿色的笔在这里。", spans=(Span(0, 2, "Color"),))]
    _, _, labelling, taught, _ = prepared(encoder, "tagging", rows)
    weights = class_weights(ObjectiveSettings(class_weights={"O": 0.5}), labelling, taught.examples)
    assert weights is not None
    assert labelling.classes == ("O", "B-Color", "I-Color")
    assert (weights / weights[1]).tolist() == pytest.approx([0.5, 1, 1])


@pytest.mark.parametrize(
    ("task", "objectives", "said"),
    [
        ("classification", {"class_weights": {"bleu": 2}, "kl": 0.1}, ["there is no label 'bleu'", "without `kl`"]),
        ("regression", {"class_weights": "balanced", "smoothing": 0.1}, ["`class_weights` could be for", "`smoothing` could be for"]),
    ],
)
def test_objectives_of_another_task_are_refused_together(task: Any, objectives: dict[str, Any], said: list[str]) -> None:
    settings = TrainingSettings.model_validate_json(json.dumps({"task": task, "stages": [{"name": "a", "objectives": objectives}]}))
    labelling = Labelling(task, ("blue", "red") if task == "classification" else (), 64)
    with pytest.raises(InputError) as caught:
        check_objectives(settings, labelling)
    assert all(part in str(caught.value) for part in said)
    assert "training.stages.0.objectives" in str(caught.value)


def test_f1_is_averaged_over_labels_or_taken_of_all_spans() -> None:
    wanted, said = [{"a"}, {"a"}, {"b"}, {"c"}], [{"a"}, {"b"}, {"b"}, {"b"}]
    assert f1_of(wanted, said, mean=True).value == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)
    spans = [{(0, 2, "x"), (5, 7, "y")}, set()], [{(0, 2, "x"), (5, 8, "y")}, {(1, 2, "x")}]
    assert f1_of(*spans, mean=False).value == pytest.approx(2 * 1 / 5)
    assert f1_of([set()], [set()], mean=True).value == 0


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_the_best_model_can_be_chosen_by_its_score(make_dataset: MakeDataset, encoder: Base, store: Store, task: str) -> None:
    rows = [record(text, label, (Span(text.index("red"), text.index("red") + 3, "Color"),) if "red" in text else ()) for text, label in TEXTS] * 4
    chosen = {"task": task, "epochs": 12, "learning_rate": 3e-3, "precision": "float32", "batch": {"row_tokens": 64}, "validation": {"by": "score", "times": 6}}
    run, _ = train(make_dataset(train=rows, validation=rows[:6]), encoder, TrainingSettings.model_validate(chosen), workspace=store.workspace(task))
    checks = [row for row in map(json.loads, run.file("metrics.jsonl").read_text().splitlines()) if "validation_score" in row]
    best = max(row["validation_score"] for row in checks)
    first = next(row for row in checks if row["validation_score"] == best)
    assert (run.facts["best_step"], run.facts["validation_loss"]) == (first["step"], first["validation_loss"])
    assert 0.4 < best <= 1
