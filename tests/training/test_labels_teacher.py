"""A larger model with the same labels teaches a smaller one: its share of the loss is the formula, its outputs stand where the student's do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from conftest import MakeDataset
from metier.errors import InputError, ModelError
from metier.models import Base, Labeller, load_tokenizer, resolve
from metier.models.heads import label_scores, layout_of
from metier.models.labels import Labelling
from metier.store import Store
from metier.testing import tiny_encoder
from metier.training import train
from metier.training.batches import row_at
from metier.training.labelteacher import teacher_of
from metier.training.objectives import label_objective, taught_losses
from metier.training.settings import DistillationSettings, ObjectiveSettings
from metier.training.taught import prepare_labels
from training.test_labels import ROWS, numbered, record, related
from training.test_labels_methods import settings_of

RECORDS: dict[str, Any] = {"regression": numbered, "pair": related}


def expert(make_dataset: MakeDataset, store: Store, found: Base, task: str, **more: Any) -> Base:
    """Return a trained expert's folder as a teacher."""
    dataset = make_dataset(train=RECORDS.get(task, list)(ROWS))
    settings = settings_of("full", **({"task": task, "validation": {"times": 0}, "epochs": 3.0} | more))
    _, trained = train(dataset, found, settings, workspace=store.workspace(f"teacher-{task}"))
    return resolve(str(trained.path), root=trained.path)


def student_of(task: str, teacher: Base, make_dataset: MakeDataset, store: Store, found: Base, **more: Any) -> Any:
    dataset = make_dataset(train=RECORDS.get(task, list)(ROWS))
    distillation = {"teacher": "t", "weight": 0.4} | ({} if task == "regression" else {"temperature": 3.0})
    settings = settings_of("lora", **({"task": task, "validation": {"times": 0}, "objectives": {"distillation": distillation}} | more))
    return prepare_labels(dataset, found, settings, task, teacher, workspace=store.workspace(f"student-{task}"))  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression", "pair", "tagging"])
def test_a_teacher_s_share_of_the_loss_is_its_formula(task: Any, make_dataset: MakeDataset, store: Store, base: Base, encoder: Base) -> None:
    # The teacher is a decoder with a tokenizer of its own.
    teacher = expert(make_dataset, store, base, task)
    made = student_of(task, teacher, make_dataset, store, encoder)
    taught, model, labels = made.trainer.course.taught, made.trainer.model.eval(), made.labels
    row = row_at(taught, range(len(taught)))
    layout = layout_of(model, labels)
    with torch.no_grad():
        scores = label_scores(model, layout, row.tokens, row.positions, lengths=row.lengths, sources=row.sources, kinds=row.kinds)
        own = taught_losses(labels, layout)(model, row)
    ids = {item.id: item for item in RECORDS.get(task, list)(ROWS)}
    records = [ids[origin.id] for origin in taught.origins]
    labeller = Labeller.open(base, teacher.folder, dtype=torch.float32)
    readings = labeller.read([item.text for item in records], [item.metadata.get("pair") for item in records])  # type: ignore[misc]
    wanted = torch.cat([labeller.scores([reading])[0] for reading in readings])
    assert row.said is not None
    assert torch.allclose(row.said, wanted, atol=1e-4)
    if task == "regression":
        expected = 0.6 * own + 0.4 * (scores - wanted)[:, 0] ** 2 / 2
    elif task in ("classification", "tagging"):
        warm, cool = (scores / 3).softmax(dim=1), (wanted / 3).softmax(dim=1)
        expected = 0.6 * own + 0.4 * 9 * (cool * (cool.log() - warm.log())).sum(dim=1)
    else:
        warm, cool = torch.sigmoid(scores / 3), torch.sigmoid(wanted / 3)
        apart = cool * (cool / warm).log() + (1 - cool) * ((1 - cool) / (1 - warm)).log()
        expected = 0.6 * own + 0.4 * 9 * apart.mean(dim=1)
    settings = made.trainer.settings.objectives
    with torch.no_grad():
        found = label_objective(labels, layout, settings)(model, row)
    assert found.item() == pytest.approx(expected.sum().item(), rel=1e-4)
    assert abs(found.item() - own.sum().item()) > 1e-3


def test_numbers_are_turned_into_the_student_s_units(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    teacher = teacher_of(expert(make_dataset, store, encoder, "regression"), Labelling("regression", (), 64, centre=3.0, spread=2.0))
    said = teacher._in_units_of(Labelling("regression", (), 64, centre=3.0, spread=2.0), torch.tensor([[0.5]]))
    assert said.item() == pytest.approx((0.5 * teacher.labelling.spread + teacher.labelling.centre - 3.0) / 2.0)


def test_a_student_comes_nearer_to_its_teacher_and_names_it(make_dataset: MakeDataset, store: Store, encoder: Base, tmp_path: Path) -> None:
    large = tiny_encoder(tmp_path / "large", hidden=96, layers=3, seed=5)
    teacher = expert(make_dataset, store, large, "classification", epochs=8.0)
    texts = [item.text for item in ROWS]
    wanted = torch.tensor([item.probabilities for item in Labeller.open(large, teacher.folder, dtype=torch.float32).predict(texts)])
    gaps = []
    dataset = make_dataset(train=ROWS)
    for weight in (0.0, 1.0):
        objectives = {"distillation": {"teacher": "t", "weight": weight}} if weight else {}
        settings = settings_of("full", task="classification", validation={"times": 0}, epochs=12.0, objectives=objectives)
        run, trained = train(dataset, encoder, settings, teacher if weight else None, workspace=store.workspace(f"near-{weight}"))
        ours = torch.tensor([item.probabilities for item in Labeller.open(encoder, trained.path, dtype=torch.float32).predict(texts)])
        gaps.append((wanted * (wanted.log() - ours.log())).sum(dim=1).mean().item())
    assert gaps[1] < 0.5 * gaps[0]
    assert run.facts["teacher"]["digest"] == teacher.digest
    assert teacher.digest in run.parents


def test_a_model_of_transformers_with_the_labels_in_another_order_teaches(make_dataset: MakeDataset, store: Store, encoder: Base, tmp_path: Path) -> None:
    names = ["light blue", "green", "red"]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(
            encoder.folder, num_labels=3, id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)}
        ).eval()
    plain.save_pretrained(tmp_path / "plain")
    load_tokenizer(encoder).save_pretrained(tmp_path / "plain")
    made = student_of("classification", resolve(str(tmp_path / "plain"), root=tmp_path), make_dataset, store, encoder)
    assert made.labels.labels == ("green", "light blue", "red")
    taught = made.trainer.course.taught
    texts = {item.id: item.text for item in ROWS}
    tokenizer = load_tokenizer(encoder)
    for place in range(4):
        with torch.inference_mode():
            logits = plain(**tokenizer(texts[taught.origins[place].id], return_tensors="pt")).logits[0]
        assert np.allclose(taught.said_of([place])[0], logits[[1, 0, 2]].numpy(), atol=1e-4)


def test_a_text_too_long_for_the_teacher_is_learnt_from_its_label_alone(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    teacher = expert(make_dataset, store, encoder, "classification", batch={"row_tokens": 128, "maximum_tokens": 16})
    long = record("The red lamp is here and " * 5, label="red")
    settings = settings_of("lora", task="classification", objectives={"distillation": {"teacher": "t", "weight": 1.0}})
    made = prepare_labels(make_dataset(train=[*ROWS, long]), encoder, settings, "classification", teacher, workspace=store.workspace("long"))
    taught, model = made.trainer.course.taught, made.trainer.model.eval()
    (place,) = [place for place, origin in enumerate(taught.origins) if origin.id == long.id]
    row, layout = row_at(taught, [place]), layout_of(model, made.labels)
    assert row.said is not None
    assert row.said.isnan().all()
    loss = label_objective(made.labels, layout, settings.objectives)(model, row)
    assert loss.item() == pytest.approx(taught_losses(made.labels, layout)(model, row).item())
    gradients = torch.autograd.grad(loss, list(made.trainer.parameters.values()), allow_unused=True)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)


def test_a_teacher_of_something_else_is_refused_with_the_difference(make_dataset: MakeDataset, store: Store, encoder: Base, tmp_path: Path) -> None:
    teacher = expert(make_dataset, store, encoder, "classification")
    with pytest.raises(ModelError, match="answers classification, and tagging is taught"):
        teacher_of(teacher, Labelling("tagging", ("Color",), 64))
    with pytest.raises(ModelError, match=r"it lacks 'blue'; only it has 'light blue'"):
        teacher_of(teacher, Labelling("classification", ("blue", "green", "red"), 64))
    with pytest.raises(ModelError, match="does not say what its outputs mean"):
        teacher_of(encoder, Labelling("classification", ("a", "b"), 64))
    settings = settings_of("lora", task="regression", objectives={"distillation": {"teacher": "t", "temperature": 3.0}})
    with pytest.raises(InputError, match=r"distillation\.temperature"):
        train(make_dataset(train=numbered(ROWS)), encoder, settings, teacher, workspace=store.workspace("warm"))
    # A model without a head is not given one at random.
    folder = tmp_path / "headless"
    folder.mkdir()
    for file in encoder.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "labels.json").write_bytes((teacher.folder / "labels.json").read_bytes())
    distillation = ObjectiveSettings(distillation=DistillationSettings(teacher="t"))
    chosen = settings_of("lora", task="classification", objectives=json.loads(distillation.model_dump_json()))
    with pytest.raises(ModelError, match=r"headless lacks 4 weights"):
        train(make_dataset(train=ROWS), encoder, chosen, resolve(str(folder), root=folder), workspace=store.workspace("headless"))
