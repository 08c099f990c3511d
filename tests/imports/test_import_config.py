"""Files of other tools: settings land where they mean the same, what means something else is said, and no key disappears."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from metier import sources
from metier.config import load_yaml
from metier.errors import ConfigError, InputError
from metier.imports.convert import Finding, Imported, convert
from metier.imports.tools import TOOLS, load_tool
from metier.imports.values import CONVERSIONS
from metier.imports.write import write_project
from metier.project import Project, ProjectSettings, load_project
from metier.records import Record

LLAMA_FACTORY = """\
### model
model_name_or_path: models/base
trust_remote_code: true
hf_hub_token: hf_0123456789abcdef

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_target: q_proj,v_proj
pissa_init: false

### dataset
dataset: questions, talks, openai, ranked, absent
template: qwen3_nothink
cutoff_len: 4096
max_samples: 1000
packing: true
preprocessing_num_workers: 16

### output
output_dir: saves/lora
logging_steps: 10
save_steps: 500
overwrite_output_dir: true
report_to: none

### train
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
learning_rate: 1e-4
num_train_epochs: 2.5
lr_scheduler_type: cosine
warmup_ratio: 0.1
adam_beta2: 0.95
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
lora_rnak: 8

### eval
val_size: 0.2
eval_strategy: steps
"""

AXOLOTL = """\
base_model: NousResearch/Llama-3.2-1B
load_in_8bit: false
load_in_4bit: false
datasets:
  - path: data/train.jsonl
    type: chat_template
    field_messages: conversations
    message_property_mappings: {role: from, content: value}
    roles_to_train: [assistant]
  - path: teknium/GPT4-LLM-Cleaned
    type: alpaca
  - path: data/own.jsonl
    type: {field_instruction: frage, field_output: antwort, format: "Q: {instruction}"}
val_set_size: 0.1
output_dir: ./outputs/lora-out
adapter: lora
lora_model_dir:
sequence_len: 2048
sample_packing: true
lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
lora_target_linear: true
wandb_project:
gradient_accumulation_steps: 2
micro_batch_size: 2
num_epochs: 3
optimizer: adamw_8bit
lr_scheduler: one_cycle
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
warmup_steps: 10
evals_per_epoch: 4
loss_watchdog_threshold: 5.0
weight_decay: 0.01
special_tokens:
  pad_token: "<|end_of_text|>"
"""

SOUP = """\
base: meta-llama/Llama-3.1-8B-Instruct
task: sft
data:
  train: ./data/train.jsonl
  format: alpaca
  val_split: 0.15
  max_length: 1024
training:
  epochs: 5
  lr: 1e-5
  batch_size: auto
  gradient_accumulation_steps: 8
  lora:
    r: 32
    alpha: 64
    target_modules: auto
  quantization: none
  warp_factor: 9
output: ./output
"""

INFO = {
    "questions": {"file_name": "questions.json", "columns": {"prompt": "问题", "query": "补充", "response": "答案"}},
    "talks": {"file_name": "talks.jsonl", "formatting": "sharegpt", "columns": {"messages": "turns", "system": "system", "tools": "tools"}},
    "openai": {
        "file_name": "openai.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"},
    },
    "ranked": {"file_name": "ranked.json", "ranking": True, "columns": {"chosen": "good", "rejected": "bad"}},
}
ROWS: dict[str, list[dict[str, Any]]] = {
    "questions.json": [{"问题": f"第{n}条怎么写？", "补充": "简短", "答案": f"写第{n}行。"} for n in range(3)],
    "talks.jsonl": [
        {"turns": [{"from": "human", "value": f"Question {n}?"}, {"from": "gpt", "value": f"Answer {n}."}], "system": "Be brief."} for n in range(3)
    ],
    "openai.jsonl": [{"messages": [{"role": "user", "content": f"Why {n}?"}, {"role": "assistant", "content": f"Because {n}."}]} for n in range(3)],
    "ranked.json": [],
    "train.jsonl": [{"conversations": [{"from": "human", "value": f"你好{n}"}, {"from": "gpt", "value": f"您好{n}"}]} for n in range(3)],
    "own.jsonl": [{"frage": f"Frage {n}", "antwort": f"Antwort {n}"} for n in range(3)],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with data as the three tools keep it."""
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "models" / "base").mkdir(parents=True)
    (data / "dataset_info.json").write_text(json.dumps(INFO), encoding="utf-8")
    for name, rows in ROWS.items():
        text = json.dumps(rows, ensure_ascii=False) if name.endswith(".json") else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (data / name).write_text(text, encoding="utf-8")
    return tmp_path


Make = Callable[..., tuple[Imported, Project]]


@pytest.fixture
def make(folder: Path) -> Make:
    """Return a function that imports a text and loads what was written."""

    def call(text: str, *, tool: str | None = None) -> tuple[Imported, Project]:
        file, out = folder / "train.yaml", folder / "metier.yaml"
        file.write_text(text, encoding="utf-8")
        out.unlink(missing_ok=True)
        imported = convert(file, folder, tool=tool)
        write_project(imported, out, name="imported", pack="example")
        return imported, load_project(out)

    return call


def said(imported: Imported, key: str) -> Finding:
    return next(item for item in imported.findings if item.key == key)


def test_llama_factory_s_settings_land_where_they_mean_the_same(make: Make) -> None:
    imported, project = make(LLAMA_FACTORY)
    settings = project.settings
    training = settings.training
    assert (settings.base, training.adaptation.rank, training.adaptation.targets) == ("models/base", 16, ("q_proj", "v_proj"))
    assert (training.epochs, training.learning_rate, training.precision) == (2.5, 1e-4, "bfloat16")
    assert (training.optimizer.schedule, training.optimizer.warmup, training.optimizer.betas) == ("cosine", 0.1, (0.9, 0.95))
    assert (training.batch.maximum_tokens, training.batch.rows, training.checkpoint.steps) == (4096, 16, 500)
    assert settings.prepare.split.validation == 0.2
    # What the file keeps silent about is that tool's default, not this one's.
    assert training.seed == 42
    assert "LLaMA-Factory's default" in (project.root / "metier.yaml").read_text(encoding="utf-8")
    assert "cut there" in said(imported, "cutoff_len").note


def test_axolotl_s_and_soup_s_settings_land_where_they_mean_the_same(make: Make) -> None:
    imported, project = make(AXOLOTL)
    training = project.settings.training
    assert (training.adaptation.rank, training.adaptation.alpha, training.adaptation.dropout, training.adaptation.targets) == (16, 32, 0.05, "all-linear")
    assert (training.epochs, training.learning_rate, training.precision) == (3, 0.0002, "auto")
    assert (training.batch.rows, training.batch.maximum_tokens, training.validation.times) == (4, 2048, 12)
    assert training.optimizer.weight_decay == 0.01
    assert "10 steps: here the warm-up is a share" in said(imported, "warmup_steps").note
    assert said(imported, "lr_scheduler").state == "not taken"
    imported, project = make(SOUP)
    training, update = project.settings.training, project.settings.training.adaptation
    assert (update.rank, update.alpha, update.targets, training.epochs, training.learning_rate) == (
        32,
        64,
        ("q_proj", "v_proj"),
        5,
        1e-5,
    )
    assert (update.dropout, training.optimizer.weight_decay, training.optimizer.warmup) == (0.05, 0.01, 0.03), "defaults of that tool"
    assert project.settings.prepare.split.validation == 0.15


@pytest.mark.parametrize(("text", "name"), [(LLAMA_FACTORY, "llama-factory"), (AXOLOTL, "axolotl"), (SOUP, "soup")])
def test_no_key_disappears_neither_from_what_is_said_nor_from_the_file(make: Make, text: str, name: str) -> None:
    imported, project = make(text)
    assert imported.tool.name == name

    def leaves(value: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for key, item in value.items():
            found += leaves(item, f"{prefix}{key}.") if name == "soup" and isinstance(item, dict) else [f"{prefix}{key}"]
        return found

    keys = leaves(yaml.safe_load(text))
    findings = {item.key for item in imported.findings}
    assert [key for key in keys if key not in findings] == []
    written = (project.root / "metier.yaml").read_text(encoding="utf-8")
    assert [key for key in keys if key not in written and said(imported, key).to != "sources"] == []
    assert all(item.note for item in imported.of("not taken", "unknown", "same"))
    for item in imported.of("taken"):
        assert item.to is not None


def test_an_unknown_key_is_said_with_its_line_and_the_nearest_one(make: Make) -> None:
    imported, _ = make(LLAMA_FACTORY)
    found = said(imported, "lora_rnak")
    assert (found.state, found.line) == ("unknown", LLAMA_FACTORY.splitlines().index("lora_rnak: 8") + 1)
    assert "did you mean 'lora_rank'?" in found.note
    assert said(make(SOUP)[0], "training.warp_factor").state == "unknown"


def test_what_has_no_place_names_the_nearest_setting_or_the_reason(make: Make) -> None:
    imported, _ = make(LLAMA_FACTORY)
    assert "nearest: training.validation.times" in said(imported, "eval_strategy").note
    assert "own code is never run" in said(imported, "trust_remote_code").note
    assert "nearest: prepare.mix" in said(imported, "max_samples").note
    assert said(imported, "output_dir").state == "same"
    assert said(imported, "pissa_init").state == "same", "off there, and none here"
    assert said(imported, "resume_from_checkpoint").state == "empty"


def test_batches_of_examples_and_steps_of_packed_rows_are_not_the_same(make: Make) -> None:
    imported, project = make(LLAMA_FACTORY.replace("packing: true\n", ""))
    assert project.settings.training.batch.rows_of_step == 1
    note = said(imported, "per_device_train_batch_size").note
    assert "2 x 8 examples make a step there" in note
    assert "rows x row_tokens" in note


def test_secrets_are_not_repeated(make: Make) -> None:
    imported, project = make(LLAMA_FACTORY)
    written = (project.root / "metier.yaml").read_text(encoding="utf-8")
    assert "hf_0123456789abcdef" not in written + "".join(map(str, imported.findings))
    assert said(imported, "hf_hub_token").value == "a secret, not repeated"


def test_a_method_that_this_version_does_not_have_is_said_and_not_written(make: Make) -> None:
    from metier.training.settings import TrainingSettings

    methods = TrainingSettings.model_fields["method"].annotation
    for key, method in (("finetuning_type: full", "full"), ("use_dora: true", "dora"), ("quantization_bit: 4", "qlora")):
        text = LLAMA_FACTORY.replace("finetuning_type: lora\n", "") + key + "\n"
        imported, project = make(text)
        if f"'{method}'" in str(methods):
            assert project.settings.training.method == method
        else:
            assert project.settings.training.method == "lora"
            assert f"does not take {method!r} in this version" in said(imported, key.split(":")[0]).note
    imported, _ = make(LLAMA_FACTORY.replace("stage: sft", "stage: dpo"))
    assert "nothing else" in said(imported, "stage").note


def test_declared_data_becomes_sources_that_are_read(make: Make) -> None:
    imported, project = make(LLAMA_FACTORY)
    assert [source.path for source in project.settings.sources] == ["data/questions.json", "data/talks.jsonl", "data/openai.jsonl"]
    records = [item for item in sources.read(project.settings.sources, project.root) if isinstance(item, Record)]
    assert [len(record.messages) for record in records] == [2, 2, 2, 3, 3, 3, 2, 2, 2]
    assert (records[0].messages[0].content, records[3].messages[0].content) == ("第0条怎么写？\n简短", "Be brief.")
    notes = " ".join(item.note for item in imported.of("not taken"))
    assert "'ranked' holds preferences" in notes
    assert "'absent' does not stand in" in notes
    assert "calls of tools are not taught" in notes
    questions, talks, openai = project.settings.sources
    assert questions.columns == {"instruction": "问题", "input": "补充", "output": "答案"}
    assert (talks.format, talks.columns) == ("sharegpt", {"conversations": "turns"})
    assert (openai.format, openai.columns, openai.licence) == ("messages", {}, "not-stated")


def test_axolotl_s_data_becomes_sources_and_a_hub_s_is_said(make: Make) -> None:
    imported, project = make(AXOLOTL)
    first, second = project.settings.sources
    assert (first.path, first.format, first.columns) == ("data/train.jsonl", "sharegpt", {})
    assert (second.format, second.columns) == ("alpaca", {"instruction": "frage", "output": "antwort"})
    notes = " ".join(item.note for item in imported.of("not taken"))
    assert "'teknium/GPT4-LLM-Cleaned' is no file or folder" in notes
    assert "roles_to_train" in notes
    assert "the prompt's format is not taken" in notes


def test_data_outside_the_project_is_named_by_its_whole_path(folder: Path) -> None:
    (folder / "train.yaml").write_text(AXOLOTL, encoding="utf-8")
    (folder / "other").mkdir()
    imported = convert(folder / "train.yaml", folder / "other")
    write_project(imported, folder / "other" / "metier.yaml", name="x", pack=None)
    project = load_project(folder / "other")
    assert project.settings.sources[0].path == str((folder / "data" / "train.jsonl").resolve())
    assert project.settings.pack == "none-chosen"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metier: 1\nproject: x\n", "this is a project file of Metier already"),
        ("learning_rate: 1\nseed: 2\n", "its keys do not tell which tool it is for"),
        ("", "holds no settings"),
        ("a: [1\n", "not valid YAML"),
        ("base_model: a\nbase_model: b\n", "stands twice"),
    ],
)
def test_files_that_are_none_are_said(folder: Path, text: str, message: str) -> None:
    (folder / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        convert(folder / "x.yaml", folder)


def test_the_tool_can_be_named_where_keys_do_not_tell(make: Make, folder: Path) -> None:
    imported, project = make("learning_rate: 0.01\nseed: 7\n", tool="axolotl")
    assert (imported.tool.name, project.settings.training.seed) == ("axolotl", 7)
    with pytest.raises(InputError, match="did you mean 'axolotl'"):
        convert(folder / "train.yaml", folder, tool="axolotel")


@pytest.mark.parametrize("name", TOOLS)
def test_what_is_known_of_a_tool_is_sound(name: str) -> None:
    """Every setting that keys lead to exists, every conversion too, every default has a key, and no key is known twice."""
    tool = load_tool(name)
    for setting in tool.settings.values():
        assert setting.conversion in CONVERSIONS or setting.conversion == "datasets"
    places = [setting.to for setting in tool.settings.values()] + [group.nearest for groups in tool.groups.values() for group in groups]
    for place in filter(None, places):
        current: Any = ProjectSettings
        for part in place.split("."):
            field = current.model_fields.get(part)
            assert field is not None, place
            inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
            current = next((item for item in inner if hasattr(item, "model_fields")), None)
    assert not tool.defaults.keys() - tool.settings.keys()
    assert not tool.settings.keys() & tool.groups.keys()
    assert len(tool.keys) > 80
    raw = load_yaml(Path(__file__).parents[2] / "src" / "metier" / "imports" / "data" / f"{name}.yaml").value
    listed = [key for entry in raw["groups"] if "only" not in entry for key in entry["keys"]]
    assert sorted({key for key in listed if listed.count(key) > 1}) == []


def test_every_argument_of_the_trainer_that_llama_factory_takes_is_known() -> None:
    from dataclasses import fields

    from transformers import Seq2SeqTrainingArguments

    known = set(load_tool("llama-factory").keys)
    assert sorted(field.name for field in fields(Seq2SeqTrainingArguments) if field.init and field.name not in known) == []


@pytest.mark.parametrize(
    ("tool", "keys"),
    [
        ("soup", "training.grpo_judge training.minillm_enabled training.stream_nf4_scale_cache training.early_stop_patience training.lisa_enabled advise.goal"),
        ("llama-factory", "kt_weight_path enable_thinking use_asft_loss asft_alpha enable_torch_profiler n_shot master_addr"),
        ("axolotl", "ebft tiled_mlp qgalore_rank eval_sequence_len generate_samples lora_rank_pattern use_onebitllms rope_scaling"),
    ],
)
def test_keys_of_the_newest_releases_are_known_with_a_reason(tool: str, keys: str) -> None:
    known = load_tool(tool)
    for key in keys.split():
        group = known.group(key, None)
        assert group is not None, key
        assert group.text
