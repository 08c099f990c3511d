"""Labels and spans are taught by the one loop, on encoders and decoders, saved in PEFT's or transformers' format, and give the same answers again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import MakeDataset
from metier import training
from metier.artifacts import Artifact
from metier.errors import InputError, ModelError
from metier.models import Base, Labeller, load_tokenizer
from metier.models.adapterfile import adapter_faults
from metier.models.heads import layout_of, load_with_head
from metier.models.labels import Labelling
from metier.models.words import TextReader
from metier.records import Record, Source, Span, identify
from metier.shards import read_drops
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import row_of
from metier.training.effective import settled_for_labels
from metier.training.examples import Collector, Labelled
from metier.training.labelled import encode_labelled, fit_labelling
from metier.training.objectives import label_objective
from metier.training.settings import BatchSettings, CheckpointSettings, ObjectiveSettings, ValidationSettings
from metier.training.trainer import Trainer

COLORS = {"red": "红", "green": "绿", "light blue": "浅蓝"}
THINGS = {"pen": "笔", "lamp": "灯", "table": "桌子", "door": "门"}


def record(text: str, *, label: str | None = None, spans: tuple[Span, ...] = (), **metadata: object) -> Record:
    made = Record(id="", text=text, label=label, spans=spans, language="en" if text.isascii() else "zh", metadata=metadata)
    return replace(made, id=identify(made), source=Source("data/all.jsonl", "0" * 64, f"line {len(text)}", "CC0-1.0"))


def spanned(text: str, **kinds: str) -> tuple[Span, ...]:
    return tuple(Span(text.index(piece), text.index(piece) + len(piece), kind, piece) for kind, piece in kinds.items())


def rows() -> list[Record]:
    """Return sentences in both languages with the spans of colour and thing, the language's label and numbers beside them."""
    found = []
    for color, colour in COLORS.items():
        for thing, ding in THINGS.items():
            for text, kinds in ((f"The {color} {thing} is here.", (color, thing)), (f"{colour}{ding}在这里。", (colour, ding))):
                spans = spanned(text, Color=kinds[0], Thing=kinds[1])
                found.append(record(text, label=color, spans=spans, labels=[thing, "zh"] if kinds[1] == ding else [thing]))
        found.append(record(f"It has {len(color)} letters.", label=color, labels=[]))
    return found


ROWS = rows()
SETTINGS = TrainingSettings(
    epochs=40,
    learning_rate=3e-3,
    precision="float32",
    batch=BatchSettings(row_tokens=128, maximum_tokens=64),
    validation=ValidationSettings(times=0),
    checkpoint=CheckpointSettings(steps=1000, seconds=1000),
)


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings(**{**{name: getattr(SETTINGS, name) for name in SETTINGS.model_fields_set}, **changes})


def numbered(records: list[Record]) -> list[Record]:
    """Return the records with a number as the label: how many letters the colour has."""
    return [replace(item, label=str(len(item.label or ""))) for item in records]


def related(records: list[Record]) -> list[Record]:
    """Return the records with a second text, and 1 as the label where that names the thing."""
    found = []
    for number, item in enumerate(records):
        things = [span.text for span in item.spans if span.type == "Thing"]
        second = things[0] if things and number % 2 else "lamp"
        found.append(replace(item, metadata={"pair": second}, label=str(int(second in things))))
    return found


def test_spans_are_learnt_in_both_languages(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    run, trained = train(make_dataset(train=ROWS), encoder, settings(task="tagging"), workspace=store.workspace("tags"))
    assert trained.facts["method"] == "full"
    assert trained.facts["labels"] == ["Color", "Thing"]
    assert set(trained.files) == {"labels.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert adapter_faults(trained.path, rank=None, base=encoder.digest, trained_on=encoder.digest) == []
    model = Labeller.open(encoder, trained.path, dtype=torch.float32)
    answers = model.predict([item.text for item in ROWS])
    assert [answer.spans for answer in answers] == [item.spans for item in ROWS]
    assert run.facts["dropped"] == run.facts["widened_spans"] == 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_was_trained_gives_the_same_answers_in_transformers_and_peft(
    method: str, make_dataset: MakeDataset, store: Store, encoder: Base, tmp_path: Path
) -> None:
    import transformers
    from peft import PeftConfig, PeftModel

    chosen = settings(task="tagging", method=method, epochs=3, **({"adaptation": {"rank": 4}} if method == "lora" else {}))
    _, trained = train(make_dataset(train=ROWS), encoder, chosen, workspace=store.workspace("again"))
    ours = Labeller.open(encoder, trained.path, dtype=torch.float32)
    if method == "full":
        theirs = transformers.AutoModelForTokenClassification.from_pretrained(trained.path, attn_implementation="eager").eval()
        assert theirs.config.id2label == {0: "O", 1: "B-Color", 2: "I-Color", 3: "B-Thing", 4: "I-Thing"}
    else:
        assert PeftConfig.from_pretrained(trained.path).task_type == "TOKEN_CLS"
        plain = transformers.AutoModelForTokenClassification.from_pretrained(encoder.folder, num_labels=5, attn_implementation="eager")
        theirs = PeftModel.from_pretrained(plain, trained.path).eval()
    tokenizer = load_tokenizer(encoder)
    for item in ROWS[:6]:
        reading = ours.reader.by_word(item.text)
        (scores,) = ours.scores([reading])
        with torch.inference_mode():
            logits = theirs(**tokenizer(item.text, return_tensors="pt")).logits[0]
        assert torch.allclose(scores, logits[list(reading.firsts)], atol=1e-4)


@pytest.mark.parametrize("kind", ["encoder", "base"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_one_label_is_learnt_on_encoders_and_decoders(kind: str, method: str, make_dataset: MakeDataset, store: Store, request: pytest.FixtureRequest) -> None:
    found: Base = request.getfixturevalue(kind)
    sizes = {"learning_rate": 1e-2, "adaptation": {"rank": 8}} if method == "lora" else {}
    chosen = settings(task="classification", method=method, epochs=60, **sizes)
    _, trained = train(make_dataset(train=ROWS), found, chosen, workspace=store.workspace("label"))
    model = Labeller.open(found, trained.path, dtype=torch.float32)
    answers = model.predict([item.text for item in ROWS])
    right = sum(answer.labels == (item.label,) for answer, item in zip(answers, ROWS, strict=True))
    # One sentence a colour names no colour but its number of letters.
    assert right >= len(ROWS) - 3
    assert all(abs(sum(answer.probabilities) - 1) < 1e-5 for answer in answers)
    assert adapter_faults(trained.path, rank=trained.facts["rank"], base=found.digest, trained_on=found.digest) == []


def test_a_decoder_tags_with_the_last_token_of_each_word(make_dataset: MakeDataset, store: Store, base: Base) -> None:
    _, trained = train(make_dataset(train=ROWS), base, settings(task="tagging", adaptation={"rank": 16}, learning_rate=1e-2), workspace=store.workspace("tags"))
    assert trained.facts["method"] == "lora"
    config = json.loads(trained.file("adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("TOKEN_CLS", ["score"])
    answers = Labeller.open(base, trained.path, dtype=torch.float32).predict([item.text for item in ROWS])
    # What stands behind a word is not seen: the colour of one that goes on is, its end is not always.
    assert sum(answer.spans == item.spans for answer, item in zip(answers, ROWS, strict=True)) >= 0.7 * len(ROWS)


def test_several_labels_numbers_and_pairs_are_learnt(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    for task, records in (("multi-label", ROWS), ("regression", numbered(ROWS)), ("pair", related(ROWS))):
        dataset = make_dataset(train=records)
        _, trained = train(dataset, encoder, settings(task=task, epochs=150), workspace=store.workspace(task))
        model = Labeller.open(encoder, trained.path, dtype=torch.float32)
        answers = model.predict([item.text for item in records], [str(item.metadata["pair"]) if task == "pair" else None for item in records])
        if task == "multi-label":
            names = ("door", "lamp", "pen", "table", "zh")
            right = [(name in answer.labels) is (name in item.metadata["labels"]) for answer, item in zip(answers, records, strict=True) for name in names]
            assert sum(right) >= 0.9 * len(right)
        elif task == "regression":
            assert max(abs(answer.value - float(item.label)) for answer, item in zip(answers, records, strict=True)) < 0.7
        else:
            assert [str(int(answer.value > 0.5)) for answer in answers] == [item.label for item in records]


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression", "pair", "tagging"])
def test_the_packed_loss_is_the_sum_of_the_losses_alone(task: str, encoder: Base) -> None:
    records = {"regression": numbered, "pair": related}.get(task, list)(ROWS)
    labelling = fit_labelling(records, task, 64)
    model = load_with_head(encoder, labelling, torch.float32, seed=0, frozen=False)
    layout = layout_of(model, labelling)
    examples = encode_labelled(records, TextReader(load_tokenizer(encoder)), labelling, layout).examples
    objective = label_objective(labelling, layout, ObjectiveSettings())
    with torch.no_grad():
        together = float(objective(model, row_of(examples)))
        alone = sum(float(objective(model, row_of([example]))) for example in examples)
    assert together == pytest.approx(alone, rel=1e-4)


def test_an_interrupted_training_goes_on_with_the_same_numbers(make_dataset: MakeDataset, store: Store, encoder: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(train=ROWS, validation=ROWS[:4])
    chosen = settings(task="tagging", epochs=4, checkpoint=CheckpointSettings(steps=1), validation=ValidationSettings(times=2))
    run, trained = train(dataset, encoder, chosen, workspace=store.workspace("whole"))
    whole = Trainer._write

    def stop(self: Trainer, stage: object, result: object, checked: object) -> None:
        whole(self, stage, result, checked)  # type: ignore[arg-type]
        if self.position.step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_write", stop)
    with pytest.raises(KeyboardInterrupt):
        train(dataset, encoder, chosen, workspace=store.workspace("parts"))
    monkeypatch.undo()
    again, resumed = train(dataset, encoder, chosen, workspace=store.workspace("parts"))

    def losses(found: Artifact) -> list[float]:
        return [json.loads(line)["loss"] for line in found.file("metrics.jsonl").read_text().splitlines()]

    assert losses(again) == losses(run)
    assert resumed.files["model.safetensors"] == trained.files["model.safetensors"]


def test_overlapping_spans_are_refused_with_the_records_named(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    text = "The light red pen is here."
    inside = record(text, spans=(Span(4, 17, "Thing"), Span(10, 13, "Color")))
    crosses = record(f"{text}!", spans=(Span(4, 13, "Color"), Span(10, 17, "Thing")))
    with pytest.raises(InputError) as caught:
        train(make_dataset(train=[*ROWS, inside, crosses]), encoder, settings(task="tagging"), workspace=store.workspace("nested"))
    said = str(caught.value)
    assert f"record {inside.id}: the span Color 10-13 lies inside Thing 4-17" in said
    assert f"record {crosses.id}: the span Thing 10-17 crosses Color 4-13" in said
    assert "data/all.jsonl" in said
    assert "keep the outer or the inner one" in said


@pytest.mark.parametrize(
    ("task", "records", "message"),
    [
        ("classification", [replace(item, label="red") for item in ROWS], "nothing to tell apart"),
        ("classification", [replace(item, label=None) for item in ROWS], "no training record has a label"),
        ("tagging", [replace(item, spans=()) for item in ROWS], "no training record has spans"),
        ("regression", ROWS, "the label is not a number"),
        ("pair", numbered(ROWS), "a number between 0"),
        ("pair", [replace(item, metadata={}) for item in related(ROWS)], "no second text"),
    ],
)
def test_data_that_teach_nothing_are_refused(task: str, records: list[Record], message: str, make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    with pytest.raises(InputError, match=message):
        train(make_dataset(train=records), encoder, settings(task=task), workspace=store.workspace("bad"))


def test_what_does_not_fit_is_left_out_with_its_reason(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    long, unlabelled = record("red " * 100, label="red"), record("A door.", label=None)
    run, trained = train(make_dataset(train=[*ROWS, long, unlabelled]), encoder, settings(task="classification", epochs=1), workspace=store.workspace("long"))
    reasons = {drop.record_id: drop.reason for drop in read_drops(run.file("drops.parquet"))}
    assert reasons == {long.id: f"too_many_tokens:{len(TextReader(load_tokenizer(encoder)).whole([long.text])[0])}>64", unlabelled.id: "no_label"}
    (answer,) = Labeller.open(encoder, trained.path).predict([long.text])
    assert not answer.read


def test_a_folder_of_another_base_or_damaged_weights_is_refused(make_dataset: MakeDataset, store: Store, encoder: Base, tmp_path: Path) -> None:
    _, trained = train(make_dataset(train=ROWS), encoder, settings(task="classification", epochs=1), workspace=store.workspace("base"))
    with pytest.raises(ModelError, match="another base model"):
        Labeller.open(replace(encoder, digest="0" * 64), trained.path)
    weights = trained.path / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelError, match="safetensors"):
        Labeller.open(encoder, trained.path)
    (trained.path / "labels.json").chmod(0o644)
    (trained.path / "labels.json").write_text('{"task": "singing"}')
    with pytest.raises(ModelError, match=r"labels\.json"):
        Labeller.open(encoder, trained.path)


def test_the_outputs_of_a_head_are_named() -> None:
    assert Labelling("tagging", ("A", "B"), 8).classes == ("O", "B-A", "I-A", "B-B", "I-B")
    assert Labelling("classification", ("A", "B"), 8).classes == ("A", "B")
    assert Labelling("regression", (), 8).classes == ("score",)


def test_what_is_multiplied_in_bf16_learns_what_fp32_learns(encoder: Base) -> None:
    labelling = fit_labelling(ROWS, "tagging", 64)
    model = load_with_head(encoder, labelling, torch.float32, seed=0, frozen=False).requires_grad_(True)
    layout = layout_of(model, labelling)
    row = row_of(encode_labelled(ROWS, TextReader(load_tokenizer(encoder)), labelling, layout).examples)
    gradients, losses = [], []
    for compute in (None, torch.bfloat16):
        model.zero_grad()
        loss = label_objective(labelling, layout, ObjectiveSettings(), compute=compute)(model, row)
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([item.grad.flatten() for item in model.parameters() if item.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert float(torch.nn.functional.cosine_similarity(*gradients, dim=0)) > 0.99
    assert {item.dtype for item in model.parameters()} == {torch.float32}
    assert not model.base_model.embeddings._forward_hooks


def test_the_entry_of_training_is_the_same_after_it_was_used(make_dataset: MakeDataset, store: Store, encoder: Base) -> None:
    # A module of its name in the package would take its place once it is imported.
    train(make_dataset(train=ROWS), encoder, settings(task="classification", epochs=1), workspace=store.workspace("once"))
    assert training.train is train
    assert callable(training.train)


def test_a_step_has_enough_answers_and_a_pass_enough_steps() -> None:
    def rows_of(words: int, texts: int, rows: Any = "auto", *, whole: bool = True) -> int | str:
        with Collector("classes") as found:
            for number in range(texts):
                found.take(Record(id=str(number), text="x", label="a"), Labelled(tuple(range(words)), (0,), (0,)))
        settings = TrainingSettings(task="classification", batch=BatchSettings(row_tokens=1024, rows=rows))
        return settled_for_labels(settings, "full", found.collected(), encoder=True, whole=whole).batch.rows

    assert rows_of(200, 2000) == 7, "32 texts of 200 tokens"
    assert rows_of(30, 2000) == 1, "a row holds 34"
    assert rows_of(200, 300) == 3, "16 steps a pass"
    assert rows_of(200, 20) == 1
    assert rows_of(200, 2000, 2) == 2, "what is asked for stays"
    assert rows_of(200, 2000, whole=False) == "auto", "a text of words has an answer a word"
