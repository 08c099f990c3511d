"""A model made without its weights is, once they are read, the one that was loaded: every family, parameters and buffers, tied and not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from metier.errors import ModelError
from metier.models import Base, load_tokenizer, load_weights, resolve
from metier.models.heads import load_with_head
from metier.models.labels import Labelling
from metier.models.methods import METHODS, Shape, attach_method
from training.test_planning_counts import CONFIGS

SHAPE = Shape(rank=2, alpha=4, size=4, layers=1)
LABELS = Labelling("classification", ("a", "b", "c"), 64)


def filled(model: Any) -> dict[str, torch.Tensor]:
    """Return a model's parameters and buffers, those that it lacks as they are on disk."""
    keys = model.stored.keys(model)
    found = dict(model.named_parameters()) | dict(model.named_buffers())
    assert set(keys) == {name for name, tensor in found.items() if tensor.is_meta} - {name for name in found if name.endswith("magnitude")}
    return {name: model.stored.read(keys[name]).to(tensor.dtype) if name in keys else tensor for name, tensor in found.items()}


def same(model: Any, whole: Any) -> None:
    ours, theirs = filled(model), dict(whole.named_parameters()) | dict(whole.named_buffers())
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        if not ours[name].is_meta:
            assert torch.equal(ours[name], tensor), name


@pytest.fixture
def family(request: pytest.FixtureRequest, base: Base, tmp_path: Path) -> Base:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(CONFIGS[request.param](), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(tmp_path / "model", max_shard_size="200KB")
    load_tokenizer(base).save_pretrained(tmp_path / "model")
    return resolve(str(tmp_path / "model"), root=tmp_path)


@pytest.mark.parametrize("family", [name for name in CONFIGS if name != "gemma2"], indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_family_is_read_as_it_is_loaded(family: Base, dtype: torch.dtype) -> None:
    assert (family.folder / "model.safetensors.index.json").exists()
    model: Any = load_weights(family, dtype, later=True)
    whole: Any = load_weights(family, dtype)
    assert sum(parameter.numel() for parameter in model.parameters() if not parameter.is_meta) < 0.1 * sum(item.numel() for item in whole.parameters())
    tied = whole.get_output_embeddings().weight is whole.get_input_embeddings().weight
    assert tied == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)
    same(model, whole)


@pytest.mark.parametrize("method", [name for name, facts in METHODS.items() if facts.shards and facts.family != "virtual"])
def test_every_method_is_put_on_it_with_the_same_numbers(base: Base, method: str) -> None:
    model, whole = load_weights(base, torch.float32, later=True), load_weights(base, torch.float32)
    for one in (model, whole):
        attach_method(one, method, SHAPE, seed=3)
    assert [name for name, item in model.named_parameters() if item.requires_grad] == [name for name, item in whole.named_parameters() if item.requires_grad]
    same(model, whole)


@pytest.mark.parametrize("kind", ["encoder", "base"])
def test_a_head_is_drawn_as_it_is_on_a_loaded_model(kind: str, request: pytest.FixtureRequest) -> None:
    found: Base = request.getfixturevalue(kind)
    for frozen in (True, False):
        model = load_with_head(found, LABELS, torch.float32, seed=4, frozen=frozen, later=True)
        whole: Any = load_with_head(found, LABELS, torch.float32, seed=4, frozen=frozen)
        assert model.trained_whole == whole.trained_whole
        same(model, whole)


def test_what_cannot_be_read_part_by_part_is_refused_with_the_way_out(base: Base, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for file in base.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    save_file({name.replace("q_proj", "query"): tensor for name, tensor in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError, match=r"2 weights .* stored under other names, first 'model.layers.0.self_attn.q_proj.weight'.*\n.*distribution: replicated"
    ):
        load_weights(resolve(str(folder), root=folder), torch.float32, later=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}))
    with pytest.raises(ModelError, match=r"is packed.*\n.*distribution: replicated"):
        load_weights(resolve(str(folder), root=folder), torch.float32, later=True)
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="cannot be read"):
        load_weights(resolve(str(folder), root=folder), torch.float32, later=True)
