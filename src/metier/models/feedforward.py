"""Gated feed-forward layers, down(activation(gate(x)) * up(x)), that keep two values for the backward pass and not three.

The activation's output is worked out again from its input, which costs far less than the matrix products around it. Of a layer's memory this is the
largest part that can be had so cheaply: with W the inner width, 2 W of 3 W values a token.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import gelu, silu

__all__ = ["keep_less"]

_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}


@dataclass(frozen=True, slots=True)
class _Activation:
    """A function, and its gradient's: (gradient of the output, input) -> gradient of the input."""

    forward: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


_ACTIVATIONS = (
    _Activation(silu, torch.ops.aten.silu_backward),
    _Activation(partial(gelu, approximate="tanh"), partial(torch.ops.aten.gelu_backward, approximate="tanh")),
    _Activation(gelu, torch.ops.aten.gelu_backward),
)


class _Gated(torch.autograd.Function):
    """activation(gate) * up, of which gate and up are kept, as far as a gradient needs them."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, activation: _Activation) -> torch.Tensor:
        ctx.save_for_backward(gate, up if ctx.needs_input_grad[0] else None)
        ctx.activation = activation
        return activation.forward(gate) * up

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        for_up = gradients[0] * ctx.activation.forward(gate) if ctx.needs_input_grad[1] else None
        for_gate = ctx.activation.backward(gradients[0] * up, gate) if ctx.needs_input_grad[0] else None
        return for_gate, for_up, None


def _forward(self: Any, x: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = _Gated.apply(self.gate_proj(x), self.up_proj(x), self.known_activation)  # type: ignore[no-untyped-call]
    lowered: torch.Tensor = self.down_proj(product)
    return lowered


def keep_less(model: nn.Module) -> int:
    """Let a model's gated feed-forward layers keep less for the backward pass, and return how many do.

    A layer is known by its parts' names, which the Llama, Qwen, Mistral and Gemma families share, and taken only if on a probe it gives, bit for
    bit, what its own code gives. Its names and weights stay as they are.
    """
    kinds: dict[type[nn.Module], type[nn.Module]] = {}
    found = [layer for layer in model.modules() if {name for name, _ in layer.named_children()} == _PARTS]
    taken = [(layer, activation) for layer in found if (activation := _activation_of(layer))]
    for layer, activation in taken:
        own = type(layer)
        layer.known_activation = activation  # type: ignore[assignment]
        layer.__class__ = kinds.setdefault(own, type(own.__name__, (own,), {"forward": _forward, "__module__": own.__module__}))
    return len(taken)


class _Probe(nn.Module):
    """A product by a number: what stands in for a linear layer while a layer's code is tried."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


@torch.no_grad()
def _activation_of(layer: nn.Module) -> _Activation | None:
    """Return the activation with which `_forward` does what the layer's own code does; None if there is none. The weights may not be there yet."""
    tried: Any = copy.copy(layer)
    tried._modules = {"gate_proj": _Probe(1.5), "up_proj": _Probe(-0.75), "down_proj": _Probe(2.5), "act_fn": layer.get_submodule("act_fn")}
    x = torch.linspace(-4, 4, 65)
    try:
        expected = tried(x)
    except Exception:  # noqa: BLE001 - a layer whose code wants other arguments or parts raises what it likes
        return None
    return next((item for item in _ACTIVATIONS if torch.equal(expected, item.forward(x * 1.5) * (x * -0.75) * 2.5)), None)
