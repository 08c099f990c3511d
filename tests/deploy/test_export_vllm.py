"""Folders for vLLM, read by vLLM's own rules: what it checks of a configuration, which names of tensors it parses, and the update that it works out.

The rules are those of vLLM 0.32.0: vllm/lora/peft_helper.py (from_dict, validate_legal), vllm/lora/lora_model.py (check_unexpected_modules, from_lora_tensors),
vllm/lora/utils.py (parse_fine_tuned_lora_name) and vllm/config/lora.py (MaxLoRARanks). What they say is written out here as a reader of its own, which shares
no code with the writer; where vLLM is installed, its own reader is asked, too.
"""

from __future__ import annotations

import json
import math
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deploy.test_export_methods import RANKS, SHAPE, base_of, run, taught
from metier.deploy.vllm import RANKS as ALLOWED
from metier.deploy.vllm import vllm_faults
from metier.models import load_weights
from metier.models.methods import Shape, open_adapter
from metier.project import Project

PACKED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
SUPPORTED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
"""The layers of vLLM's Llama, Qwen and Gemma classes, and what each of them is packed from (`packed_modules_mapping`)."""
NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def legal(config: dict[str, Any], largest: int) -> float:
    """Return an adapter's strength as PEFTHelper works it out. Raises ValueError as it does, for a server of --max-lora-rank `largest`."""
    if missing := {"r", "lora_alpha", "target_modules"} - set(config):
        raise ValueError(f"missing {missing}")
    if config["r"] <= 0 or config["r"] > largest:
        raise ValueError(f"rank {config['r']} with --max-lora-rank {largest}")
    # Of modules that are saved whole vLLM knows heads for labels; only adapters that answer in words are written for it.
    for key in ("modules_to_save", "use_dora", "lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora"):
        if config.get(key):
            raise ValueError(key)
    if isinstance(start := config.get("init_lora_weights"), str):
        raise ValueError(f"init_lora_weights {start}: it may have changed the base model")
    # Older versions pass these over and take one rank and one strength for all layers.
    for key in ("rank_pattern", "alpha_pattern"):
        if config.get(key):
            raise ValueError(key)
    if config.get("bias", "none") != "none":
        raise ValueError("bias")
    return float(config["lora_alpha"] / (math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]))


def load_like_vllm(folder: Path, largest: int) -> dict[str, torch.Tensor]:
    """Return the update of each layer, scale B A, from a folder. Raises ValueError for what vLLM refuses."""
    config = json.loads((folder / "adapter_config.json").read_bytes())
    scale = legal(config, largest)
    expected = {part for module in SUPPORTED for part in PACKED.get(module, (module,))}
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(folder / "adapter_model.safetensors").items():
        match = NAME.fullmatch(name)
        if match is None:
            raise ValueError(f"{name} is unsupported LoRA weight")
        if match["module"].rsplit(".", 1)[-1] not in expected:
            raise ValueError(f"{match['module']} is no target module")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    for module, found in sides.items():
        # Both sides are copied into stacked tensors of --max-lora-rank rows; the rank of each layer is that of its own tensors.
        assert set(found) == {"A", "B"}, module
        assert len(found["A"]) == found["B"].shape[1] <= largest
        assert {tensor.dtype for tensor in found.values()} <= {torch.float32, torch.float16, torch.bfloat16}, "what can be turned to the model's format"
    return {module: scale * found["B"].float() @ found["A"].float() for module, found in sides.items()}


@pytest.mark.parametrize(
    ("method", "shape"),
    [("lora", SHAPE), ("rslora", SHAPE), ("qlora", SHAPE), ("lora", RANKS), ("rslora", RANKS), ("adalora", SHAPE), ("gated-lora", SHAPE)],
    ids=lambda value: value if isinstance(value, str) else "ranks" if value is RANKS else "even",
)
def test_vllm_takes_the_folder_and_works_out_the_expert_s_update(project: Project, method: str, shape: Shape, tmp_path: Path) -> None:
    adapter = taught(project, method, tmp_path / "adapter", shape)
    done = run(project, adapter, tmp_path / "out", "vllm")
    card = (done.folder / "README.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"--max-lora-rank (\d+)", card)
    assert int(named) in ALLOWED
    found = load_like_vllm(done.folder, int(named))
    model = load_weights(base_of(project), torch.float32)
    open_adapter(model, adapter.path)
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "lora_a")}
    assert set(found) == set(layers), "vLLM passes over a layer whose name it does not know without a word"
    for name, layer in layers.items():
        assert torch.allclose(found[name], layer.scale * layer.lora_b @ layer.lora_a, atol=1e-6)
        assert found[name].shape == layer.base.weight.shape


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: its own reader is not asked")
@pytest.mark.parametrize("shape", [SHAPE, RANKS], ids=["even", "ranks"])
def test_vllm_s_own_reader_gives_the_same_update(project: Project, shape: Shape, tmp_path: Path) -> None:
    from vllm.lora.lora_model import LoRAModel
    from vllm.lora.peft_helper import PEFTHelper

    done = run(project, taught(project, "rslora", tmp_path / "adapter", shape), tmp_path / "out", "vllm")
    expected = {part for module in SUPPORTED for part in PACKED.get(module, (module,))}
    helper = PEFTHelper.from_local_dir(str(done.folder), 512)
    found = LoRAModel.from_local_checkpoint(str(done.folder), expected, peft_helper=helper, lora_model_id=1, device="cpu")
    ours = load_like_vllm(done.folder, max(ALLOWED))
    assert set(found.loras) == set(ours)
    for name, layer in found.loras.items():
        assert torch.allclose(layer.scaling * layer.lora_b @ layer.lora_a, ours[name], atol=1e-6)


@pytest.mark.parametrize(
    "changed", [{"r": 1024}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}, {"bias": "all"}], ids=["rank", "modules", "dora", "bias"]
)
def test_what_vllm_refuses_in_a_configuration_is_said_before_writing(changed: dict[str, Any]) -> None:
    sound = {"r": 16, "lora_alpha": 32.0, "target_modules": ["q_proj"], "bias": "none", "modules_to_save": None}
    assert legal(sound, 16) == 2.0
    assert list(vllm_faults(sound)) == []
    with pytest.raises(ValueError, match=next(iter(changed)) if "r" not in changed else "rank"):
        legal({**sound, **changed}, max(ALLOWED))
    assert len(list(vllm_faults({**sound, **changed}))) == 1


@pytest.mark.parametrize(
    "name", ["base_model.model.lm_head.lora_A.weight", "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "score.weight"]
)
def test_other_tensors_would_be_refused(project: Project, name: str, tmp_path: Path) -> None:
    done = run(project, taught(project, "lora", tmp_path / "adapter"), tmp_path / "out", "vllm")
    path = done.folder / "adapter_model.safetensors"
    save_file(load_file(path) | {name: torch.ones(4, 4)}, path)
    with pytest.raises(ValueError, match=r"unsupported LoRA weight|no target module"):
        load_like_vllm(done.folder, 8)
