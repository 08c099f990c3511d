"""A model that gives every text the same answer is said to have learnt nothing; a loss alone would not show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from conftest import MakeDataset
from metier.models import Base, load_tokenizer
from metier.models.heads import load_with_head
from metier.models.words import TextReader
from metier.records import Record
from metier.store import Store
from metier.training import train
from metier.training.labelled import fit_labelling
from metier.training.scoring import label_doubt
from metier.training.settings import ObjectiveSettings
from metier.training.taught import prepare_labels
from training.test_labels import ROWS, numbered, related, settings
from training.test_private_labels import people
from training.test_private_labels import settings as private_settings

KINDS = {
    "classification": (ROWS, "'light blue'"),
    "multi-label": (ROWS, "no label at all"),
    "tagging": (ROWS, "no span at all"),
    "regression": (numbered(ROWS), "one number"),
    "pair": (related(ROWS), "one number"),
}


def flattened(encoder: Base, task: Any, rows: list[Record], *, answer: int | None) -> tuple[Any, Any]:
    """Return a doubt and a model whose head hears nothing of the text and prefers one output (None: any output is as good)."""
    labelling = fit_labelling(rows, task, 64)
    model: Any = load_with_head(encoder, labelling, torch.float32, seed=0, frozen=False)
    head = model.classifier
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1.0)
        if answer is not None:
            head.bias[answer] = 1.0
    return label_doubt(labelling, TextReader(load_tokenizer(encoder)), rows, device="cpu"), model


@pytest.mark.parametrize("task", list(KINDS))
def test_one_answer_to_everything_is_noticed(task: str, encoder: Base) -> None:
    rows, said = KINDS[task]
    doubt, model = flattened(encoder, task, rows, answer={"classification": 1, "tagging": 0}.get(task))
    found = doubt(model.eval())
    assert found is not None
    assert said in found
    assert "train for more epochs" in found


def test_what_is_right_or_too_few_to_say_is_not_doubted(encoder: Base) -> None:
    alike = [replace(row, label="red") if number else row for number, row in enumerate(ROWS)]
    doubt, model = flattened(encoder, "classification", [*alike, replace(ROWS[0], label="green")], answer=1)
    assert doubt(model.eval()) is None, "only rare labels are missing"
    doubt, model = flattened(encoder, "classification", ROWS[::5], answer=0)
    assert len(ROWS[::5]) < 8
    assert doubt(model.eval()) is None


def test_a_training_says_so_and_keeps_it_in_its_facts(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    dataset = make_dataset(train=ROWS, validation=ROWS)
    deaf = settings(task="classification", epochs=2, objectives=ObjectiveSettings(class_weights={"red": 1000.0}))
    run, _ = train(dataset, encoder, deaf, workspace=store.workspace("deaf"))
    assert any(alarm.startswith("'red' is answered to all 27 validation records, and 18 of them say otherwise") for alarm in run.facts["alarms"])
    run, _ = train(dataset, encoder, settings(task="classification"), workspace=store.workspace("taught"))
    assert run.facts["alarms"] == []


def test_a_private_training_tells_nothing_of_records(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    dataset = make_dataset(train=people(ROWS), validation=people(ROWS))
    for name, chosen, private in (("open", settings(task="classification"), False), ("private", private_settings("full", "classification"), True)):
        made = prepare_labels(dataset, encoder, chosen, "classification", workspace=store.workspace(name))
        assert (made.trainer.doubt is None) == private
