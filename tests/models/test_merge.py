"""Merging: the sum is right to the last bit of the base's format, nothing else changes, and a base that is not full precision is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

from metier.errors import ModelError
from metier.models import Base, LocalModel, load_weights
from metier.models.changes import low_rank_changes
from metier.models.lorafile import AdapterWeights, read_adapter
from metier.models.merge import merge_weights, stored_tensors
from metier.models.parity import Limits, adapter_effect, compare, golden, own_logits, plain_logits
from models.exported import PROMPTS, adapter_folder, byte_level, model_folder


@pytest.fixture(scope="module", params=["F32", "F16", "BF16"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, Path, str]:
    """A base in each number format with an adapter of it."""
    folder = tmp_path_factory.mktemp(request.param)
    dtype = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[request.param]
    base = model_folder(folder / "base", "llama", byte_level(None), dtype=dtype)
    return base, adapter_folder(folder / "adapter", base, targets=["q_proj", "down_proj"]), request.param


def weights(base: Base, adapter: Path) -> AdapterWeights:
    return read_adapter(load_weights(base, torch.float32), adapter, base=base.digest)


def merged(base: Base, adapter: Path, folder: Path) -> Path:
    folder.mkdir()
    merge_weights(base.folder, low_rank_changes(weights(base, adapter)), folder)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base.folder / name, folder / name)
    return folder


def test_merged_weights_are_those_of_peft_s_own_merge_in_fp32_rounded_once(stored: tuple[Base, Path, str], tmp_path: Path) -> None:
    base, adapter, kind = stored
    reference = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    expected = PeftModel.from_pretrained(reference, str(adapter)).merge_and_unload().state_dict()
    found = load_file(merged(base, adapter, tmp_path / "merged") / "model.safetensors")
    before = load_file(base.folder / "model.safetensors")
    changed = {name for name in found if not torch.equal(found[name], before[name])}
    assert changed == {f"model.layers.{layer}.{part}.weight" for layer in (0, 1) for part in ("self_attn.q_proj", "mlp.down_proj")}
    step = {"F32": 1e-6, "F16": 2**-10, "BF16": 2**-7}[kind]
    for name in changed:
        assert found[name].dtype == before[name].dtype
        assert torch.allclose(found[name].float(), expected[name], rtol=step, atol=1e-6)
        # Rounded once and to the nearest: what the sum was in fp32 lies no further than half a step away.
        assert ((found[name].float() - expected[name]).abs() <= expected[name].abs() * step / 2 + 1e-6).all()


def test_what_the_adapter_does_not_touch_stays_byte_for_byte(stored: tuple[Base, Path, str], tmp_path: Path) -> None:
    base, adapter, _ = stored
    folder = merged(base, adapter, tmp_path / "merged")
    ours, theirs = stored_tensors(folder), stored_tensors(base.folder)
    assert {name: (item.dtype, item.shape, item.start) for name, item in ours.items()} == {
        name: (item.dtype, item.shape, item.start) for name, item in theirs.items()
    }
    assert (folder / "model.safetensors").stat().st_size == (base.folder / "model.safetensors").stat().st_size


def test_a_model_in_several_files_is_merged_file_by_file(stored: tuple[Base, Path, str], tmp_path: Path) -> None:
    base, adapter, _ = stored
    split = tmp_path / "split"
    shutil.copytree(base.folder, split)
    model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, dtype="auto")
    (split / "model.safetensors").unlink()
    model.save_pretrained(split, max_shard_size="200KB")
    assert len(list(split.glob("*.safetensors"))) > 1
    (tmp_path / "merged").mkdir()
    merge_weights(split, low_rank_changes(weights(base, adapter)), tmp_path / "merged")
    whole = load_file(merged(base, adapter, tmp_path / "whole") / "model.safetensors")
    found: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "merged").glob("*.safetensors"):
        found |= load_file(path)
    assert found.keys() == whole.keys()
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_logits_of_the_merged_model_are_those_of_base_and_adapter(stored: tuple[Base, Path, str], tmp_path: Path) -> None:
    base, adapter, kind = stored
    ours = LocalModel.open(base, adapter, dtype=torch.float32)
    rows = golden(ours, PROMPTS, answer_tokens=12)
    reference = own_logits(ours, rows)
    effect = adapter_effect(ours, rows, reference)
    assert effect > 0.1
    model = transformers.AutoModelForCausalLM.from_pretrained(merged(base, adapter, tmp_path / "merged"), dtype=torch.float32).eval()
    parity = compare(reference, plain_logits(model, rows), effect=effect)
    assert parity.places == sum(len(row.tokens) - row.first for row in rows)
    # Coarser formats cost more, and none costs what the adapter does.
    assert parity.error < {"F32": 1e-5, "F16": 5e-3, "BF16": 5e-2}[kind]
    assert parity.error < 0.05 * effect
    if kind == "F32":
        assert parity.same == 1.0
        for row in rows:
            answer = model.generate(torch.tensor([row.prompt]), max_new_tokens=11, do_sample=False, pad_token_id=0)[0, len(row.prompt) :]
            expected = row.tokens[row.first + 1 :]
            assert len(expected) > 1
            assert tuple(answer.tolist())[: len(expected)] == expected


@pytest.mark.parametrize("wrong", ["twice the strength", "not merged", "one layer less"])
def test_a_wrong_merge_lies_beyond_every_limit(stored: tuple[Base, Path, str], tmp_path: Path, wrong: str) -> None:
    base, adapter, _ = stored
    ours = LocalModel.open(base, adapter, dtype=torch.float32)
    rows = golden(ours, PROMPTS, answer_tokens=12)
    reference = own_logits(ours, rows)
    read = weights(base, adapter)
    tensors: dict[str, Any] = dict(read.tensors)
    alpha = read.alpha * 2 if wrong == "twice the strength" else read.alpha
    if wrong == "not merged":
        tensors = {name: tensor * 0 for name, tensor in tensors.items()}
    if wrong == "one layer less":
        tensors = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp" not in name}
    folder = tmp_path / "merged"
    folder.mkdir()
    merge_weights(base.folder, low_rank_changes(replace(read, alpha=alpha, tensors=tensors)), folder)
    shutil.copyfile(base.folder / "config.json", folder / "config.json")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    parity = compare(reference, plain_logits(model, rows), effect=adapter_effect(ours, rows, reference))
    faults = parity.faults(Limits(divergence=1e-3, largest=1.0, tie=0.1, share=0.1))
    assert any("mean divergence" in fault for fault in faults)
    assert any("of what the adapter changes" in fault for fault in faults)


def test_an_adapter_is_never_merged_into_4_bit(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", "llama", byte_level(None))
    adapter = adapter_folder(tmp_path / "adapter", base)
    read = weights(base, adapter)
    config = json.loads((base.folder / "config.json").read_text())
    (base.folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}))
    (tmp_path / "merged").mkdir()
    with pytest.raises(ModelError, match=r"(?s)stored quantised \(bitsandbytes\).*full-precision"):
        merge_weights(base.folder, low_rank_changes(read), tmp_path / "merged")
    # Also where the configuration keeps silent about it, as packed weights look.
    (base.folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(base.folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"] = torch.zeros(2048, 1, dtype=torch.uint8)
    save_file(tensors, base.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"(?s)numbers of the format U8.*only merged into F32, F16, BF16"):
        merge_weights(base.folder, low_rank_changes(read), tmp_path / "merged")
    assert list((tmp_path / "merged").iterdir()) == []


def test_a_sum_that_does_not_fit_the_base_s_format_is_refused(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", "llama", byte_level(None), dtype=torch.float16)
    read = weights(base, adapter_folder(tmp_path / "adapter", base, targets=["q_proj"]))
    (tmp_path / "merged").mkdir()
    with pytest.raises(ModelError, match="does not fit F16"):
        merge_weights(base.folder, low_rank_changes(replace(read, alpha=1e9)), tmp_path / "merged")


def test_a_layer_that_the_base_has_under_another_name_is_said(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "base", "llama", byte_level(None))
    read = weights(base, adapter_folder(tmp_path / "adapter", base, targets=["q_proj"]))
    tensors = {name.replace("q_proj", "query"): tensor for name, tensor in load_file(base.folder / "model.safetensors").items()}
    save_file(tensors, base.folder / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "merged").mkdir()
    with pytest.raises(ModelError, match=r"2 changed tensors have none of their name.*q_proj"):
        merge_weights(base.folder, low_rank_changes(read), tmp_path / "merged")


def test_a_written_model_of_another_form_or_with_no_numbers_is_a_fault() -> None:
    ours = torch.zeros(2, 5)
    with pytest.raises(ModelError, match="where the original gives"):
        compare([ours], [torch.zeros(2, 4)])
    parity = compare([ours], [torch.full((2, 5), float("nan"))])
    assert len(parity.faults(Limits(1.0, 1.0, 1.0))) == 2
    # Padding of the vocabulary is not compared.
    assert compare([ours], [torch.cat([ours, torch.ones(2, 3) * 9], dim=1)]).largest == 0
