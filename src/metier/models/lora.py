"""Low-rank adapters (LoRA), written for speed and saved in PEFT's format.

y = x W^T + scale (x A^T) B^T with W frozen (Hu et al., 2021, arXiv 2106.09685, section 4.1). The forward and backward
passes are one autograd function each, in the base weights' precision, while A, B and their gradients stay in fp32: PEFT's
own layer converts the input to fp32 and runs the small products there, which costs more than the products themselves.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize
from torch import nn
from torch.nn.functional import linear

from metier.artifacts import MANIFEST
from metier.digest import digest_bytes
from metier.errors import ModelError, nearest
from metier.store import write_atomically

__all__ = [
    "ALL_LINEAR",
    "AdapterWeights",
    "LoraLinear",
    "adapter_state",
    "attach",
    "load_adapter",
    "read_adapter",
    "save_adapter",
    "set_enabled",
    "switched_off",
]

ALL_LINEAR = "all-linear"

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LARGEST = 65536
_KNOWN = frozenset(
    [
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
        "revision",
        "target_modules",
        "task_type",
    ]
)
"""Keys of PEFT's configuration that change nothing here or are read; any other one that is set asks for what is not done."""


class _LowRank(torch.autograd.Function):
    """Output of a frozen linear layer plus a low-rank update, with only the gradients that are needed."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch dictates the form
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scale: float
    ) -> torch.Tensor:
        a_low, b_low = a.to(x.dtype), b.to(x.dtype) * scale
        inner = linear(x, a_low)
        output = linear(x, weight, bias).addmm_(inner, b_low.t())
        ctx.save_for_backward(x, weight, a_low, b_low, inner)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, weight, a_low, b_low, inner = ctx.saved_tensors
        into_inner = gradient @ b_low
        for_x = (gradient @ weight).addmm_(into_inner, a_low) if ctx.needs_input_grad[0] else None
        for_a = (into_inner.t() @ x).float()
        for_b = (gradient.t() @ inner).float() * ctx.scale
        return for_x, None, None, for_a, for_b, None


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable low-rank update."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.dropout = dropout
        self.enabled = True
        # Kaiming-uniform A and zero B, as in the paper and in PEFT: the adapter starts as the exact base model.
        bound = 1 / math.sqrt(base.in_features)
        self.lora_a = nn.Parameter((torch.rand(rank, base.in_features, generator=generator) * 2 - 1) * bound)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for x [..., in_features]."""
        if not self.enabled:
            return linear(x, self.base.weight, self.base.bias)
        rows = x.reshape(-1, x.shape[-1])
        if self.dropout and self.training:
            update = linear(linear(nn.functional.dropout(rows, self.dropout), self.lora_a.to(x.dtype)), self.lora_b.to(x.dtype)) * self.scale
            output = linear(rows, self.base.weight, self.base.bias) + update
        else:
            output = _LowRank.apply(rows, self.base.weight, self.base.bias, self.lora_a, self.lora_b, self.scale)  # type: ignore[no-untyped-call]
        return output.reshape(*x.shape[:-1], -1)


def _linear_layers(model: nn.Module, targets: Sequence[str] | str) -> list[str]:
    apart = ("lm_head", *getattr(model, "trained_whole", ()))
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = [name for name in layers if not any(name == part or name.startswith(f"{part}.") for part in apart)]
    if targets == ALL_LINEAR:
        return names
    endings = sorted({name.rsplit(".", 1)[-1] for name in names})
    for target in targets:
        if target not in endings:
            raise ModelError(f"no linear layer of this base model is called {target!r}\n    -> {nearest(target, [*endings, ALL_LINEAR])}")
    return [name for name in names if name.rsplit(".", 1)[-1] in targets]


def attach(model: nn.Module, *, rank: int, alpha: float, dropout: float, targets: Sequence[str] | str, seed: int) -> list[str]:
    """Freeze a model and put low-rank adapters beside its linear layers; return the layers' names.

    `targets` are the last parts of layer names (such as `q_proj`) or `all-linear`, which leaves the output head alone.
    Raises ModelError for a target that the model does not have.
    """
    model.requires_grad_(False)
    names = _linear_layers(model, targets)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        parent_name, _, attribute = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        base = getattr(parent, attribute)
        setattr(parent, attribute, LoraLinear(base, rank, alpha, dropout, generator).to(base.weight.device))
    return names


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def set_enabled(model: nn.Module, enabled: bool) -> None:
    """Switch all low-rank adapters of a model on or off; off gives the exact base model."""
    for _, layer in _layers(model):
        layer.enabled = enabled


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """Switch the adapters off inside the block: the exact base model without a second copy in memory."""
    set_enabled(model, False)
    try:
        yield
    finally:
        set_enabled(model, True)


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors under PEFT's names."""
    state = {}
    for name, layer in _layers(model):
        state[f"{_PREFIX}{name}.lora_A.weight"] = layer.lora_a.detach()
        state[f"{_PREFIX}{name}.lora_B.weight"] = layer.lora_b.detach()
    return state


def save_adapter(model: nn.Module, folder: Path, *, base: str, rank: int, alpha: float, dropout: float) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json` as PEFT reads them. `base` is the base model's name."""
    names = sorted({name.rsplit(".", 1)[-1] for name, _ in _layers(model)})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": names,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    # Not save_file: the error that it raises on a full disk is no OSError.
    weights = serialize({name: tensor.contiguous() for name, tensor in adapter_state(model).items()}, metadata={"format": "pt"})
    write_atomically(folder / _WEIGHTS, weights)
    write_atomically(folder / _CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def _read_config(folder: Path, data: bytes) -> Mapping[str, Any]:
    try:
        config: Mapping[str, Any] = json.loads(data)
        kind = config.get("peft_type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{folder} holds no readable {_CONFIG} ({error})\n    -> name the folder of a finished adapter") from None
    if kind != "LORA":
        raise ModelError(f"{folder / _CONFIG} is of type {kind!r}\n    -> only LORA adapters can be loaded")
    unsupported = sorted(key for key, value in config.items() if value and key not in _KNOWN and not (key == "bias" and value == "none"))
    if unsupported:
        raise ModelError(f"{folder / _CONFIG} uses {', '.join(unsupported)}, which cannot be loaded yet")
    return config


def _number(config: Mapping[str, Any], key: str, folder: Path) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST or (key == "r" and value != int(value)):
        raise ModelError(f"{folder / _CONFIG}: {key} is {value!r}\n    -> it has to be a number above 0 and at most {_LARGEST}")
    return value


def _check_base(folder: Path, base: str | None) -> None:
    """Refuse an adapter whose own manifest says that it was trained on other weights than these."""
    manifest = folder / MANIFEST
    if base is None or not manifest.is_file():
        return
    try:
        trained = json.loads(manifest.read_bytes())["facts"]["base"]
        name, digest = trained["name"], trained["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{manifest} does not say which base model the adapter belongs to ({error})\n    -> train again, or restore the file") from None
    if digest != base:
        raise ModelError(f"{folder} was trained on another base model ({name}, {str(digest)[:12]}) than the one here ({base[:12]})\n    -> train again")


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """An adapter as it was read: rank, strength, its tensors under PEFT's names, and the SHA-256 of the bytes they came from, by file."""

    rank: int
    alpha: float
    targets: Sequence[str] | str
    tensors: Mapping[str, torch.Tensor]
    files: Mapping[str, str]


def read_adapter(model: nn.Module, folder: Path, *, base: str | None = None) -> AdapterWeights:
    """Read an adapter in PEFT's LoRA format and check it against a model that has no adapter yet.

    Raises ModelError if it does not fit the model (names, shapes, rank), holds NaN or infinities, or says of itself that it belongs to
    another base model than the one with the digest `base`. The digests are of the very bytes that were parsed.
    """
    try:
        about, data = (folder / _CONFIG).read_bytes(), (folder / _WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} holds no readable adapter ({error})\n    -> name the folder of a finished adapter") from None
    config = _read_config(folder, about)
    _check_base(folder, base)
    rank, alpha, targets = int(_number(config, "r", folder)), _number(config, "lora_alpha", folder), config.get("target_modules")
    if not (targets == ALL_LINEAR or (isinstance(targets, list) and targets and all(isinstance(item, str) for item in targets))):
        raise ModelError(f"{folder / _CONFIG}: target_modules has to be a list of layer names or {ALL_LINEAR!r}, not {str(targets)[:60]!r}")
    try:
        state = parse_tensors(data)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{folder / _WEIGHTS} cannot be read as safetensors ({error})\n    -> train again, or restore the file") from None
    expected = {}
    for name in _linear_layers(model, targets):
        layer: Any = model.get_submodule(name)
        expected[f"{_PREFIX}{name}.lora_A.weight"] = (rank, layer.in_features)
        expected[f"{_PREFIX}{name}.lora_B.weight"] = (layer.out_features, rank)
    if missing := sorted(set(expected) ^ set(state)):
        raise ModelError(f"{folder} does not fit this base model: {len(missing)} tensors differ, first {_readable(missing[0])!r}")
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            raise ModelError(f"{folder}: {_readable(name)!r} has shape {tuple(state[name].shape)}, the base model needs {shape}")
        if not state[name].is_floating_point() or not torch.isfinite(state[name]).all():
            raise ModelError(f"{folder}: {_readable(name)!r} holds values that are not finite\n    -> do not use this adapter; train again")
    return AdapterWeights(rank, alpha, targets, state, {_CONFIG: digest_bytes(about), _WEIGHTS: digest_bytes(data)})


def load_adapter(model: nn.Module, folder: Path, *, base: str | None = None) -> None:
    """Attach an adapter in PEFT's LoRA format. Raises ModelError as `read_adapter` does."""
    weights = read_adapter(model, folder, base=base)
    attach(model, rank=weights.rank, alpha=weights.alpha, dropout=0.0, targets=weights.targets, seed=0)
    for name, tensor in adapter_state(model).items():
        tensor.copy_(weights.tensors[name])


def _readable(name: str) -> str:
    return re.sub(rf"^{re.escape(_PREFIX)}", "", name)
