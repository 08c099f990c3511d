"""Low-rank adapters in PEFT's format: what its configuration says, checked against a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from metier.errors import ModelError
from metier.models.adapterfile import CONFIG
from metier.models.lora import ALL_LINEAR, PREFIX, LoraLinear, adaptable, adapter_state, attach, linear_layers, pattern_of
from metier.models.saved import Saved, read_saved, write_saved

__all__ = ["AdapterWeights", "evened", "load_adapter", "lora_config", "lora_weights", "put", "read_adapter", "save_adapter"]

_LARGEST = 65536
_A, _B = ".lora_A.weight", ".lora_B.weight"
_KNOWN = frozenset(
    [
        "alpha_pattern",
        "base_model_name_or_path",
        "inference_mode",
        "init_lora_weights",
        "lora_alpha",
        "lora_dropout",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "target_modules",
        "task_type",
        "use_dora",
        "use_rslora",
    ]
)
"""Keys of PEFT's configuration that change nothing here or are read; any other one that is set asks for what is not done."""


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """A low-rank adapter as it was read: rank, strength, its tensors under PEFT's names, and the SHA-256 of the bytes they came from, by file."""

    rank: int
    alpha: float
    targets: Sequence[str] | str
    tensors: Mapping[str, torch.Tensor]
    files: Mapping[str, str]
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    stabilised: bool
    decomposed: bool

    def scale(self, name: str) -> float:
        """Return what the product of a layer's two matrices is multiplied by."""
        rank = self.ranks.get(pattern_of(name, self.ranks) or "", self.rank)
        alpha = self.alphas.get(pattern_of(name, self.alphas) or "", self.alpha)
        return alpha / (math.sqrt(rank) if self.stabilised else rank)


def lora_config(
    model: nn.Module, *, rank: int, alpha: float, dropout: float, stabilised: bool = False, ranks: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Return PEFT's configuration of the low-rank adapters of a model. Layers of another rank stand there with rank and alpha of their own.

    `ranks` are the layers that are saved, and with how many directions; None: all of them, as they were trained.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    saved = {name: layer.rank for name, layer in layers.items()} if ranks is None else ranks
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": _targets(model, saved),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    other = {name: own for name, own in saved.items() if own != rank}
    if other:
        config["rank_pattern"] = other
        config["alpha_pattern"] = {name: layers[name].scale * (math.sqrt(own) if stabilised else own) for name, own in other.items()}
    if stabilised:
        config["use_rslora"] = True
    if any(layer.magnitude is not None for layer in layers.values()):
        config["use_dora"] = True
    return config


def _targets(model: nn.Module, names: Collection[str]) -> list[str]:
    """Return what names just these layers: the last parts of their names, or the whole ones where others end so, too."""
    last = {name.rsplit(".", 1)[-1] for name in names}
    alike = {name for name in adaptable(model, nn.Linear, LoraLinear) if name.rsplit(".", 1)[-1] in last}
    return sorted(last if alike == set(names) else names)


def evened(weights: AdapterWeights) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return the changed keys of a configuration and the tensors of the same update with one rank and one strength for all layers.

    Rows of zeros fill A up to the largest rank and columns of zeros B, which adds nothing to B A; where a layer's strength is another, B carries the
    ratio. For what reads one rank and one strength from the configuration, as vLLM does.
    """
    layers = sorted(name.removesuffix(_A).removeprefix(PREFIX) for name in weights.tensors if name.endswith(_A))
    rank = max(len(weights.tensors[f"{PREFIX}{name}{_A}"]) for name in layers)
    common = weights.scale(layers[0])
    tensors = {}
    for name in layers:
        a, b = weights.tensors[f"{PREFIX}{name}{_A}"], weights.tensors[f"{PREFIX}{name}{_B}"]
        own = weights.scale(name)
        tensors[f"{PREFIX}{name}{_A}"] = pad(a, (0, 0, 0, rank - len(a)))
        tensors[f"{PREFIX}{name}{_B}"] = pad(b if own == common else b * (own / common), (0, rank - len(a)))
    return {"r": rank, "lora_alpha": common * rank, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}, tensors


def save_adapter(model: nn.Module, folder: Path, *, base: str, rank: int, alpha: float, dropout: float, stabilised: bool = False) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them. `base` is the base model's name."""
    config = lora_config(model, rank=rank, alpha=alpha, dropout=dropout, stabilised=stabilised)
    write_saved(folder, config | {"base_model_name_or_path": base}, adapter_state(model))


def _number(config: Mapping[str, Any], key: str, folder: Path) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST or (key == "r" and value != int(value)):
        raise ModelError(f"{folder / CONFIG}: {key} is {value!r}\n    -> it has to be a number above 0 and at most {_LARGEST}")
    return value


def _patterns(config: Mapping[str, Any], key: str, folder: Path) -> dict[str, float]:
    """Return a table of layer names. Only plain names are taken: a stranger's regular expression could run for ever."""
    found = config.get(key) or {}
    if not isinstance(found, dict) or not all(isinstance(name, str) and name.replace(".", "").replace("_", "").isalnum() for name in found):
        raise ModelError(f"{folder / CONFIG}: {key} has to map names of layers to numbers")
    return {name: _number(found, name, folder) for name in found}


def lora_weights(model: nn.Module, saved: Saved) -> AdapterWeights:
    """Check a low-rank adapter against a model that has no adapter yet.

    Raises ModelError if it is of another type or does not fit (names, shapes, rank).
    """
    folder, config = saved.folder, saved.config
    if saved.kind != "LORA":
        raise ModelError(f"{folder / CONFIG} is of type {config.get('peft_type')!r}\n    -> only LORA adapters can be loaded")
    unsupported = sorted(key for key, value in config.items() if value and key not in _KNOWN and not (key == "bias" and value == "none"))
    if unsupported:
        raise ModelError(f"{folder / CONFIG} uses {', '.join(unsupported)}, which cannot be loaded yet")
    rank, alpha, targets = int(_number(config, "r", folder)), _number(config, "lora_alpha", folder), config.get("target_modules")
    if not (targets == ALL_LINEAR or (isinstance(targets, list) and targets and all(isinstance(item, str) for item in targets))):
        raise ModelError(f"{folder / CONFIG}: target_modules has to be a list of layer names or {ALL_LINEAR!r}, not {str(targets)[:60]!r}")
    ranks = {name: int(value) for name, value in _patterns(config, "rank_pattern", folder).items()}
    weights = AdapterWeights(
        rank,
        alpha,
        targets,
        saved.tensors,
        saved.files,
        ranks,
        _patterns(config, "alpha_pattern", folder),
        bool(config.get("use_rslora")),
        bool(config.get("use_dora")),
    )
    _check_shapes(model, weights, folder)
    return weights


def _check_shapes(model: nn.Module, weights: AdapterWeights, folder: Path) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for name in linear_layers(model, weights.targets):
        layer: Any = model.get_submodule(name)
        rank = weights.ranks.get(pattern_of(name, weights.ranks) or "", weights.rank)
        expected[f"{PREFIX}{name}.lora_A.weight"] = (rank, layer.in_features)
        expected[f"{PREFIX}{name}.lora_B.weight"] = (layer.out_features, rank)
        if weights.decomposed:
            expected[f"{PREFIX}{name}.lora_magnitude_vector"] = (layer.out_features,)
    if missing := sorted(set(expected) ^ set(weights.tensors)):
        raise ModelError(f"{folder} does not fit this base model: {len(missing)} tensors differ, first {missing[0].removeprefix(PREFIX)!r}")
    for name, shape in expected.items():
        if tuple(weights.tensors[name].shape) != shape:
            what = f"{name.removeprefix(PREFIX)!r} has shape {tuple(weights.tensors[name].shape)}"
            raise ModelError(f"{folder}: {what}, the base model needs {shape}")


def read_adapter(model: nn.Module, folder: Path, *, base: str | None = None) -> AdapterWeights:
    """Read a low-rank adapter and check it against a model. Raises ModelError as `read_saved` and `lora_weights` do."""
    return lora_weights(model, read_saved(folder, base=base))


def put(model: nn.Module, weights: AdapterWeights) -> None:
    """Attach a low-rank adapter that was read."""
    options = {"stabilised": weights.stabilised, "decomposed": weights.decomposed}
    attach(model, rank=weights.rank, alpha=weights.alpha, dropout=0.0, targets=weights.targets, seed=0, ranks=weights.ranks, **options)
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLinear):
            layer.scale = weights.scale(name)
    for name, tensor in adapter_state(model).items():
        tensor.copy_(weights.tensors[name])


def load_adapter(model: nn.Module, folder: Path, *, base: str | None = None) -> None:
    """Attach an adapter in PEFT's LoRA format. Raises ModelError as `read_adapter` does."""
    put(model, read_adapter(model, folder, base=base))
