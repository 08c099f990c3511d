"""Bottleneck adapters: small networks of two layers beside or behind a model's own blocks.

Serial (Houlsby et al. 2019): y + W_up f(W_down y) behind the attention's and the feed-forward block's outputs y. Parallel (He et al. 2021):
y + s W_up f(W_down x) beside the feed-forward block, x its input, s = 4. W_up starts as zero, so training starts from the exact base model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, relu

from metier.errors import ModelError
from metier.models.methods.interface import Shape

__all__ = ["Bottleneck", "Bottlenecks", "attach_bottlenecks", "load_bottlenecks"]

_PREFIX = "base_model.model."
_KIND = "METIER_BOTTLENECK"
_PARALLEL_SCALE = 4.0
"""He et al. 2021, table 5: larger than 1 helps, 4 is what they keep."""


class Bottleneck(nn.Module):
    """A block with a bottleneck behind it (`scale` None) or beside it."""

    def __init__(self, base: nn.Module, down: torch.Tensor, up: torch.Tensor, scale: float | None) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.scale = scale
        self.enabled = True

    def forward(self, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """Return the block's output for x [..., hidden] with the bottleneck's part added."""
        y: torch.Tensor = self.base(x, *arguments, **options)
        if not self.enabled:
            return y
        given = y if self.scale is None else x
        added = linear(relu(linear(given, self.down.to(given.dtype))), self.up.to(given.dtype))
        return y + added if self.scale is None else torch.add(y, added, alpha=self.scale)


class Bottlenecks:
    """All bottlenecks of a model; see `Tuned`."""

    virtual = 0

    def __init__(self, model: nn.Module, places: dict[str, Bottleneck], *, parallel: bool, size: int) -> None:
        self._places = places
        self._parallel = parallel
        self._size = size

    def state(self) -> dict[str, torch.Tensor]:
        """Return W_down [size, hidden] and W_up [hidden, size] of every place."""
        found = {}
        for name, module in self._places.items():
            found[f"{_PREFIX}{name}.down.weight"] = module.down.detach()
            found[f"{_PREFIX}{name}.up.weight"] = module.up.detach()
        return found

    def config(self) -> dict[str, Any]:
        """Return the configuration; PEFT has no such method, so the type is Metier's own."""
        return {"peft_type": _KIND, "placement": "parallel" if self._parallel else "serial", "bottleneck_size": self._size}

    def enable(self, on: bool) -> None:
        """Switch all bottlenecks on or off."""
        for module in self._places.values():
            module.enabled = on


def _blocks(model: Any, *, parallel: bool) -> list[str]:
    """Return the names of the blocks that get a bottleneck. Raises ModelError for a model whose layers are built otherwise."""
    names = {name for name, _ in model.named_modules()}
    found = []
    for layer in sorted({name for name in names if name.rpartition(".")[0].endswith("layers")}, key=lambda name: int(name.rsplit(".", 1)[1])):
        places = [f"{layer}.mlp"] if parallel else [f"{layer}.self_attn.o_proj", f"{layer}.mlp"]
        if missing := [place for place in places if place not in names]:
            raise ModelError(f"this base model has no {missing[0]!r}, where a bottleneck would stand\n    -> use training.method: lora")
        found.extend(places)
    if not found:
        raise ModelError("this base model has no list of layers where bottlenecks could stand\n    -> use training.method: lora")
    return found


def _place(model: Any, name: str, down: torch.Tensor, up: torch.Tensor, *, parallel: bool) -> Bottleneck:
    parent_name, _, attribute = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    module = Bottleneck(getattr(parent, attribute), down, up, _PARALLEL_SCALE if parallel else None)
    setattr(parent, attribute, module)
    return module


def attach_bottlenecks(model: Any, method: str, shape: Shape, seed: int) -> Bottlenecks:
    """Freeze a model and put bottlenecks of `shape.size` at its blocks. Raises ModelError for a model that has no such blocks."""
    model.requires_grad_(False)
    parallel = method == "parallel-adapter"
    hidden = int(model.config.get_text_config().hidden_size)
    generator = torch.Generator().manual_seed(seed)
    places = {}
    for name in _blocks(model, parallel=parallel):
        down = (torch.rand(shape.size, hidden, generator=generator) * 2 - 1) / math.sqrt(hidden)
        places[name] = _place(model, name, down, torch.zeros(hidden, shape.size), parallel=parallel)
    return Bottlenecks(model, places, parallel=parallel, size=shape.size)


def load_bottlenecks(model: Any, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Bottlenecks:
    """Put the bottlenecks of an adapter file on a model. Raises ModelError if they do not fit."""
    placement, size = config.get("placement"), config.get("bottleneck_size")
    if placement not in {"serial", "parallel"} or not isinstance(size, int) or size < 1:
        raise ModelError(f"adapter_config.json: placement {placement!r} and bottleneck_size {size!r} are not those of a bottleneck adapter")
    model.requires_grad_(False)
    parallel, hidden = placement == "parallel", int(model.config.get_text_config().hidden_size)
    expected = {}
    for name in _blocks(model, parallel=parallel):
        expected[f"{_PREFIX}{name}.down.weight"] = (size, hidden)
        expected[f"{_PREFIX}{name}.up.weight"] = (hidden, size)
    if odd := sorted(set(expected) ^ set(tensors)):
        raise ModelError(f"the adapter does not fit this base model: {len(odd)} tensors differ, first {odd[0]!r}")
    for name, wanted in expected.items():
        if tuple(tensors[name].shape) != wanted:
            raise ModelError(f"{name!r} has shape {tuple(tensors[name].shape)}, the base model needs {wanted}")
    names = [name.removeprefix(_PREFIX).removesuffix(".down.weight") for name in expected if name.endswith(".down.weight")]
    places = {
        name: _place(model, name, tensors[f"{_PREFIX}{name}.down.weight"].float(), tensors[f"{_PREFIX}{name}.up.weight"].float(), parallel=parallel)
        for name in names
    }
    return Bottlenecks(model, places, parallel=parallel, size=size)
