"""Experts for labels, spans, numbers and pairs as plain transformers folders: every method that can be one gives its own answers there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from conftest import MakeDataset
from metier import deploy
from metier.deploy import labelled
from metier.deploy.forms import FORMATS, LABEL_REASONS, REASONS, holders, reason
from metier.errors import GateRefused, InputError, ModelError
from metier.models import Base, Labeller
from metier.models.labels import read_labelling
from metier.models.methods import METHODS
from metier.records import Message, Record
from metier.store import Store
from metier.training import TrainingSettings, train
from models.exported import QWEN, byte_level, model_folder, sentencepiece
from training.test_labels import ROWS, record

COMMON = {"epochs": 6.0, "learning_rate": 5e-3, "precision": "float32", "batch": {"row_tokens": 128, "maximum_tokens": 64}}
SIZES: dict[str, Any] = {"low-rank": {"rank": 4}, "adaptive": {"rank": 4}, "weights": {}, "bottleneck": {"size": 8}, "virtual": {"tokens": 4}}
TASKS = ("classification", "multi-label", "regression", "pair", "tagging")


def rows(task: str) -> list[Record]:
    if task == "regression":
        return [record(item.text, label=str(20.0 + len(item.text))) for item in ROWS]
    if task == "pair":
        return [record(item.text, label=str(float(index % 2)), pair=ROWS[(index + 1) % len(ROWS)].text) for index, item in enumerate(ROWS)]
    return list(ROWS)


@pytest.fixture
def taught(make_dataset: MakeDataset, store: Store) -> Any:
    """Return a function that trains an expert and gives it back as what would be exported."""

    def teach(base: Base, method: str, task: str) -> deploy.Subject:
        records = rows(task)
        dataset = make_dataset(train=records[:20], validation=records[20:])
        adaptation = SIZES[METHODS[method].family] | ({"layers": 1} if method == "partial" else {})
        settings = TrainingSettings.model_validate({"method": method, "task": task, "adaptation": adaptation} | COMMON)
        run, adapter = train(dataset, base, settings, workspace=store.workspace(f"{method}-{task}"))
        return deploy.Subject("labels", "Ada Author", adapter, run, dataset, base, None, None, "nothing was decided")

    return teach


def export(subject: deploy.Subject, out: Path, store: Store, form: Any = "merged", **wishes: Any) -> deploy.Exported:
    return deploy.export(subject, deploy.Wish(form, unreleased=True, **wishes), out, store=store)


def plain_logits(folder: Path, expert: Labeller, texts: list[str], pairs: list[str | None]) -> list[torch.Tensor]:
    kind = transformers.AutoModelForTokenClassification if expert.labelling.by_word else transformers.AutoModelForSequenceClassification
    model = kind.from_pretrained(folder).eval()
    found = []
    for reading in expert.read(texts, pairs):
        given = {"token_type_ids": torch.tensor([reading.kinds])} if any(reading.kinds) else {}
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([reading.tokens]), **given).logits[0]
        places = reading.lasts if expert.layout.causal else reading.firsts
        found.append(logits[list(places)] if expert.labelling.by_word else logits[None])
    return found


@pytest.mark.parametrize("task", ["classification", "tagging"])
@pytest.mark.parametrize("kind", ["encoder", "base"])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_a_plain_folder_or_says_why_not(
    method: str, kind: str, task: str, taught: Any, store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base: Base = request.getfixturevalue(kind)
    subject = taught(base, method, task)
    why = reason("merged", method, task)
    if why is not None:
        with pytest.raises(ModelError) as refused:
            export(subject, tmp_path / "out", store)
        assert why in str(refused.value)
        assert f"answers with {task}" in str(refused.value)
        return
    done = export(subject, tmp_path / "out", store)
    expert = Labeller.open(base, subject.adapter.path, dtype=torch.float32)
    texts = [item.text for item in ROWS]
    scores = [row for reading in expert.read(texts) for row in expert.scores([reading])]
    for ours, theirs in zip(scores, plain_logits(done.folder, expert, texts, [None] * len(texts)), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)
    config = json.loads((done.folder / "config.json").read_text())
    assert list(config["id2label"].values()) == list(expert.labelling.classes)
    assert done.manifest["measured"]["records"] == len(ROWS[20:])
    assert done.manifest["measured"]["largest"] <= done.manifest["limits"]["largest"]
    names = {path.name for path in done.folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "labels.json", "README.md", "export.json"} <= names
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    assert f"It answers with {task}" in card
    assert "Not released" in card
    assert "chat template" not in card
    assert not any(item.text in card for item in ROWS)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("kind", ["encoder", "base"])
@pytest.mark.parametrize("task", TASKS)
def test_pipelines_of_transformers_give_the_expert_s_answers(
    method: str, kind: str, task: str, taught: Any, store: Store, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base: Base = request.getfixturevalue(kind)
    subject = taught(base, method, task)
    if task == "regression" and kind == "base":
        with pytest.raises(ModelError, match=r"(?s)head for this architecture has no bias, so nothing can add the .* around which.*metier serve"):
            export(subject, tmp_path / "out", store)
        return
    done = export(subject, tmp_path / "out", store)
    expert = Labeller.open(base, subject.adapter.path, dtype=torch.float32)
    records = rows(task)[:8]
    pairs = [item.metadata.get("pair") for item in records]
    answers = expert.predict([item.text for item in records], pairs)
    if task == "tagging":
        scores = plain_logits(done.folder, expert, [item.text for item in records], pairs)
        assert [list(row.argmax(dim=1)) for row in scores] == [
            list(row.argmax(dim=1)) for reading in expert.read([item.text for item in records]) for row in expert.scores([reading])
        ]
        return
    pipeline = transformers.pipeline("text-classification", model=str(done.folder), top_k=None)
    separate = pipeline.tokenizer.sep_token_id is not None
    for item, pair, answer in zip(records, pairs, answers, strict=True):
        given: Any = item.text if pair is None else {"text": item.text, "text_pair": pair} if separate else f"{item.text}\n\n{pair}"
        (answered,) = pipeline([given])
        found = {entry["label"]: entry["score"] for entry in answered}
        if answer.value is not None:
            assert found == {"score": pytest.approx(answer.value, abs=1e-3)}
        else:
            assert found == {label: pytest.approx(chance, abs=1e-3) for label, chance in zip(expert.labelling.labels, answer.probabilities, strict=True)}
    assert read_labelling(done.folder).centre == 0.0, "outputs are in the labels' own unit"


def test_texts_of_other_lengths_are_read_together_by_a_decoder(base: Base, taught: Any, store: Store, tmp_path: Path) -> None:
    done = export(taught(base, "lora", "classification"), tmp_path / "out", store)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(done.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(done.folder)
    texts = ["The red pen is here.", "红笔", "It has 3 letters."]
    with torch.inference_mode():
        together = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
        alone = torch.cat([model(**tokenizer(text, return_tensors="pt")).logits for text in texts])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize(("kind", "tokenizer"), [("qwen3", lambda: byte_level(QWEN)), ("gemma3", sentencepiece)])
def test_other_architectures_and_formats(kind: str, tokenizer: Any, taught: Any, store: Store, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "model", kind, tokenizer(), dtype=torch.bfloat16)
    for method in ("dora", "partial"):
        subject = taught(base, method, "classification")
        done = export(subject, tmp_path / method, store)
        formats = {name: tensor.dtype for name, tensor in load_file(done.folder / "model.safetensors").items()}
        assert {name for name, dtype in formats.items() if dtype != torch.bfloat16} == {"score.weight"}, "what is trained as it is keeps fp32"
    if kind == "gemma3":
        with pytest.raises(ModelError, match="its AutoModelForTokenClassification has no class for this base model's architecture"):
            export(taught(base, "lora", "tagging"), tmp_path / "words", store)


@pytest.mark.parametrize("method", ["lora", "gated-lora", "prefix", "prompt"])
@pytest.mark.parametrize("kind", ["encoder", "base"])
def test_an_adapter_with_its_head_goes_to_peft(method: str, kind: str, taught: Any, store: Store, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    base: Base = request.getfixturevalue(kind)
    subject = taught(base, method, "classification")
    if method == "prompt" and kind == "encoder":
        with pytest.raises(ModelError, match=r"(?s)PEFT gathers a text at an encoder's first place.*metier serve"):
            export(subject, tmp_path / "out", store, "peft")
        return
    done = export(subject, tmp_path / "out", store, "peft")
    classes = read_labelling(done.folder).classes
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(base.folder, num_labels=len(classes), dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, str(done.folder)).eval()
    expert = Labeller.open(base, subject.adapter.path, dtype=torch.float32)
    for reading in expert.read([item.text for item in ROWS[:6]]):
        real = torch.tensor([reading.tokens[reading.begin :]])
        with torch.inference_mode():
            logits = theirs(input_ids=real, attention_mask=torch.ones_like(real)).logits
        assert torch.allclose(logits, expert.scores([reading])[0], atol=1e-3)


def test_a_number_s_adapter_says_how_its_output_is_read(encoder: Base, taught: Any, store: Store, tmp_path: Path) -> None:
    subject = taught(encoder, "lora", "regression")
    done = export(subject, tmp_path / "out", store, "peft")
    labelling = read_labelling(subject.adapter.path)
    assert done.manifest["notes"] == [f"The output is (number - {labelling.centre!r}) / {labelling.spread!r}."]
    assert read_labelling(done.folder) == labelling


def test_good_in_the_trainer_and_bad_after_the_export_is_refused(
    encoder: Base, taught: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = taught(encoder, "lora", "classification")
    load = labelled.load_merged

    def spoilt(base: Base, folder: Path) -> Any:
        model, labelling = load(base, folder)
        with torch.no_grad():
            model.classifier.bias.add_(torch.linspace(0, 1, len(model.classifier.bias)))
        return model, labelling

    monkeypatch.setattr(labelled, "load_merged", spoilt)
    with pytest.raises(
        GateRefused, match=r"(?s)the folder \(F32\), loaded by transformers, does not answer as the expert does, over \d+ places in \d+ records"
    ):
        export(subject, tmp_path / "out", store)
    assert not (tmp_path / "out").exists()


def test_what_goes_together_and_who_may_export(encoder: Base, taught: Any, store: Store, tmp_path: Path) -> None:
    subject = taught(encoder, "lora", "tagging")
    for form in ("gguf", "vllm"):
        with pytest.raises(ModelError, match=f"(?s)--format {form} cannot hold an expert that answers with tagging.*--format merged or --format peft"):
            export(subject, tmp_path / "out", store, form)
    with pytest.raises(InputError, match="--prompts are conversations"):
        export(subject, tmp_path / "out", store, prompts=[(Message("user", "a"),)])
    with pytest.raises(GateRefused, match="nothing was decided"):
        deploy.export(subject, deploy.Wish("merged"), tmp_path / "out", store=store)
    events: list[Any] = []
    deploy.export(replace(subject, refusal=None), deploy.Wish("merged"), tmp_path / "out", store=store, record=lambda event: events.append(event) or 1)
    assert [(event.kind, event.facts["released"]) for event in events] == [("export", True)]
    assert set(LABEL_REASONS) | {"merged", "peft"} == set(FORMATS)
    assert holders("lora", "tagging") == ["merged", "peft"]
    assert all(reason("merged", method, "pair") == REASONS["merged"].get(method) for method in METHODS)
