"""Bottleneck adapters: small networks of two layers beside or behind a model's own blocks.

Serial (Houlsby et al. 2019): y + W_up f(W_down y) behind the attention's and the feed-forward block's outputs y. Parallel (He et al. 2021):
y + s W_up f(W_down x) beside the feed-forward block, x its input, s = 4. W_up starts as zero, so training starts from the exact base model.

In encoders like BERT no module is the feed-forward block: its last part gets the block's inner state and, to add it before the norm, the
block's input x. There the parallel bottleneck is added to that x, which is the same sum.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.nn.functional import linear, relu

from metier.errors import ModelError
from metier.models.methods.interface import Shape
from metier.models.methods.structure import layers_of

__all__ = ["Bottleneck", "Bottlenecks", "attach_bottlenecks", "bottleneck_places", "load_bottlenecks"]

_PREFIX = "base_model.model."
_KIND = "METIER_BOTTLENECK"
_PARALLEL_SCALE = 4.0
"""He et al. 2021, table 5: larger than 1 helps, 4 is what they keep."""

_Side: TypeAlias = Literal["behind", "beside", "residual"]
"""Behind a block; beside it; beside the block whose input the module is given as its second argument, to be added to its output."""

_PLACES: Mapping[str, tuple[tuple[str, _Side], ...]] = {
    "serial": (("self_attn.o_proj", "behind"), ("mlp", "behind")),
    "parallel": (("mlp", "beside"),),
}
_PLACES_OF_ENCODERS: Mapping[str, tuple[tuple[str, _Side], ...]] = {
    "serial": (("attention.output.dense", "behind"), ("output.dense", "behind")),
    "parallel": (("output", "residual"),),
}


class Bottleneck(nn.Module):
    """A block with a bottleneck at one of its sides."""

    def __init__(self, base: nn.Module, down: torch.Tensor, up: torch.Tensor, side: _Side) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(up)
        self.side = side
        self.enabled = True

    def forward(self, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """Return the block's output for x [..., hidden] with the bottleneck's part added."""
        if self.enabled and self.side == "residual":
            first, *others = arguments
            arguments = (torch.add(first, self._part(first), alpha=_PARALLEL_SCALE), *others)
        y: torch.Tensor = self.base(x, *arguments, **options)
        if not self.enabled or self.side == "residual":
            return y
        return y + self._part(y) if self.side == "behind" else torch.add(y, self._part(x), alpha=_PARALLEL_SCALE)

    def _part(self, given: torch.Tensor) -> torch.Tensor:
        return linear(relu(linear(given, self.down.to(given.dtype))), self.up.to(given.dtype))


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

    def distance(self) -> torch.Tensor:
        """Return the squared size of what the bottlenecks would add if they were linear: ||W_up W_down||^2."""
        total = torch.zeros(())
        for module in self._places.values():
            total = total + (torch.mm(module.down, module.down.t()) * torch.mm(module.up.t(), module.up)).sum()
        return total

    def enable(self, on: bool) -> None:
        """Switch all bottlenecks on or off."""
        for module in self._places.values():
            module.enabled = on


def bottleneck_places(model: Any, *, parallel: bool) -> dict[str, _Side]:
    """Return the names of the blocks that get a bottleneck, and its side. Raises ModelError for a model whose layers are built otherwise."""
    found: dict[str, _Side] = {}
    for layer in layers_of(model):
        for known in (_PLACES, _PLACES_OF_ENCODERS):
            places = {f"{layer}.{name}": side for name, side in known["parallel" if parallel else "serial"]}
            if all(_has(model, name) for name in places):
                found |= places
                break
        else:
            raise ModelError(f"the layer {layer!r} of this base model has no block where a bottleneck could stand\n    -> use training.method: lora")
    return found


def _has(model: Any, name: str) -> bool:
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def _place(model: Any, name: str, down: torch.Tensor, up: torch.Tensor, side: _Side) -> Bottleneck:
    parent_name, _, attribute = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    module = Bottleneck(getattr(parent, attribute), down, up, side)
    setattr(parent, attribute, module)
    return module


def attach_bottlenecks(model: Any, method: str, shape: Shape, seed: int) -> Bottlenecks:
    """Freeze a model and put bottlenecks of `shape.size` at its blocks. Raises ModelError for a model that has no such blocks."""
    model.requires_grad_(False)
    parallel = method == "parallel-adapter"
    hidden = int(model.config.get_text_config().hidden_size)
    generator = torch.Generator().manual_seed(seed)
    places = {}
    for name, side in bottleneck_places(model, parallel=parallel).items():
        down = (torch.rand(shape.size, hidden, generator=generator) * 2 - 1) / math.sqrt(hidden)
        places[name] = _place(model, name, down, torch.zeros(hidden, shape.size), side)
    return Bottlenecks(model, places, parallel=parallel, size=shape.size)


def load_bottlenecks(model: Any, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Bottlenecks:
    """Put the bottlenecks of an adapter file on a model. Raises ModelError if they do not fit."""
    placement, size = config.get("placement"), config.get("bottleneck_size")
    if placement not in {"serial", "parallel"} or not isinstance(size, int) or size < 1:
        raise ModelError(f"adapter_config.json: placement {placement!r} and bottleneck_size {size!r} are not those of a bottleneck adapter")
    model.requires_grad_(False)
    parallel, hidden = placement == "parallel", int(model.config.get_text_config().hidden_size)
    expected = {}
    sides = bottleneck_places(model, parallel=parallel)
    for name in sides:
        expected[f"{_PREFIX}{name}.down.weight"] = (size, hidden)
        expected[f"{_PREFIX}{name}.up.weight"] = (hidden, size)
    if odd := sorted(set(expected) ^ set(tensors)):
        raise ModelError(f"the adapter does not fit this base model: {len(odd)} tensors differ, first {odd[0]!r}")
    for name, wanted in expected.items():
        if tuple(tensors[name].shape) != wanted:
            raise ModelError(f"{name!r} has shape {tuple(tensors[name].shape)}, the base model needs {wanted}")
    places = {
        name: _place(model, name, tensors[f"{_PREFIX}{name}.down.weight"].float(), tensors[f"{_PREFIX}{name}.up.weight"].float(), side)
        for name, side in sides.items()
    }
    return Bottlenecks(model, places, parallel=parallel, size=size)
