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
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import nn
from torch.nn.functional import linear

from metier.errors import ModelError, nearest
from metier.store import write_atomically

__all__ = ["ALL_LINEAR", "LoraLinear", "adapter_state", "attach", "load_adapter", "save_adapter", "set_enabled", "switched_off"]

ALL_LINEAR = "all-linear"

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."


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
    body = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    head = getattr(model, "lm_head", None)
    names = [name for name, module in body.items() if module is not head]
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


def _read_config(folder: Path) -> Mapping[str, Any]:
    try:
        config: Mapping[str, Any] = json.loads((folder / _CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder} holds no readable {_CONFIG} ({error})\n    -> name the folder of a finished adapter") from None
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{folder / _CONFIG} is of type {config.get('peft_type')!r}\n    -> only LORA adapters can be loaded")
    unsupported = [key for key in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(key)]
    if unsupported:
        raise ModelError(f"{folder / _CONFIG} uses {', '.join(unsupported)}, which cannot be loaded yet")
    return config


def load_adapter(model: nn.Module, folder: Path) -> None:
    """Attach an adapter in PEFT's LoRA format. Raises ModelError if it does not fit the model or holds NaN."""
    config = _read_config(folder)
    targets = config["target_modules"]
    attach(model, rank=config["r"], alpha=config["lora_alpha"], dropout=0.0, targets=targets, seed=0)
    try:
        state = load_file(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / _WEIGHTS} cannot be read as safetensors ({error})\n    -> train again, or restore the file") from None
    expected = adapter_state(model)
    if missing := sorted(set(expected) ^ set(state)):
        raise ModelError(f"{folder} does not fit this base model: {len(missing)} tensors differ, first {_readable(missing[0])!r}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise ModelError(f"{folder}: {_readable(name)!r} has shape {tuple(state[name].shape)}, the base model needs {tuple(tensor.shape)}")
        if not torch.isfinite(state[name]).all():
            raise ModelError(f"{folder}: {_readable(name)!r} holds values that are not finite\n    -> do not use this adapter; train again")
        tensor.copy_(state[name])


def _readable(name: str) -> str:
    return re.sub(rf"^{re.escape(_PREFIX)}", "", name)
