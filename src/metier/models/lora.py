"""Low-rank adapters (LoRA, rsLoRA, DoRA), written for speed.

y = x W^T + scale (x A^T) B^T with W frozen (Hu et al., 2021, arXiv 2106.09685, section 4.1). The forward and backward
passes are one autograd function each, in the base weights' precision, while A, B and their gradients stay in fp32: PEFT's
own layer converts the input to fp32 and runs the small products there, which costs more than the products themselves.

DoRA multiplies each output by m / ||W + scale B A|| over its row, with m trained and the norm held fixed for the gradient (Liu et al.,
2024, arXiv 2402.09353, section 4.3). The norm is found from W A^T and A A^T: the sum of both matrices is never made.

Where tokens use some of the rank's directions each, x A^T is multiplied by a mask [tokens, rank], and so is its gradient.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import linear

from metier.errors import ModelError, nearest
from metier.models.quantized import PackedLinear, pack_weights

__all__ = [
    "ALL_LINEAR",
    "PREFIX",
    "Columns",
    "LoraLinear",
    "adaptable",
    "adapted_layers",
    "adapter_state",
    "attach",
    "linear_layers",
    "pattern_of",
    "product_distance",
    "row_norms",
    "set_dropout",
    "set_enabled",
]

ALL_LINEAR = "all-linear"

PREFIX = "base_model.model."
"""What PEFT puts before a base model's own names."""


class Columns(Protocol):
    """Which of an update's directions (the columns of B) each token of the present forward pass uses."""

    @property
    def rank(self) -> int:
        """How many of them one token uses."""

    def mask(self, rows: torch.Tensor) -> torch.Tensor:
        """Return 1 for those that a token uses and 0 for the others, [tokens, rank of the whole update], in the format of `rows`."""


class _LowRank(torch.autograd.Function):
    """Output of a frozen linear layer plus a low-rank update, with only the gradients that are needed.

    The layer is asked for its weights in both passes, so that packed ones are unpacked twice and never kept.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - torch dictates the form
        ctx: Any, x: torch.Tensor, base: Any, bias: torch.Tensor | None, a: torch.Tensor, b: torch.Tensor, scale: float, mask: torch.Tensor | None
    ) -> torch.Tensor:
        a_low, b_low = a.to(x.dtype), b.to(x.dtype) * scale
        inner = linear(x, a_low) if mask is None else linear(x, a_low).mul_(mask)
        output = linear(x, base.weight, bias).addmm_(inner, b_low.t())
        ctx.save_for_backward(x, a_low, b_low, inner)
        ctx.base, ctx.scale, ctx.mask = base, scale, mask
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, a_low, b_low, inner = ctx.saved_tensors
        into_inner = gradient @ b_low if ctx.mask is None else (gradient @ b_low).mul_(ctx.mask)
        for_x = (gradient @ ctx.base.weight).addmm_(into_inner, a_low) if ctx.needs_input_grad[0] else None
        for_a = (into_inner.t() @ x).float()
        for_b = (gradient.t() @ inner).float() * ctx.scale
        return for_x, None, None, for_a, for_b, None, None


class LoraLinear(nn.Module):
    """A frozen linear layer with a trainable low-rank update."""

    def __init__(
        self, base: nn.Linear | PackedLinear, rank: int, scale: float, dropout: float, generator: torch.Generator, *, decomposed: bool = False
    ) -> None:
        super().__init__()
        self.base = base
        self.scale = scale
        self.dropout = dropout
        self.enabled = True
        # Kaiming-uniform A and zero B, as in the paper and in PEFT: the adapter starts as the exact base model.
        bound = 1 / math.sqrt(base.in_features)
        self.lora_a = nn.Parameter((torch.rand(rank, base.in_features, generator=generator) * 2 - 1) * bound)
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank))
        self.magnitude = nn.Parameter(base.weight.detach().float().norm(dim=1)) if decomposed else None
        self.directions: nn.Parameter | None = None
        """Strength of each of the update's directions [rank], where it is trained (AdaLoRA)."""
        self.gate: nn.Module | None = None
        """What says how much the update counts, between 0 and 1, where that is learnt."""
        self.columns: Columns | None = None
        """Which directions a token uses, where it is not all of them."""

    @property
    def rank(self) -> int:
        """Rank of the update of one token."""
        return len(self.lora_a) if self.columns is None else self.columns.rank

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for x [..., in_features]."""
        if not self.enabled:
            return linear(x, self.base.weight, self.base.bias)
        rows = x.reshape(-1, x.shape[-1])
        bias = self.base.bias if self.magnitude is None else None
        a = self.lora_a if self.directions is None else self.lora_a * self.directions[:, None]
        a = a if self.gate is None else a * self.gate()
        mask = None if self.columns is None else self.columns.mask(rows)
        if self.dropout and self.training:
            inner = linear(nn.functional.dropout(rows, self.dropout), a.to(x.dtype))
            update = linear(inner if mask is None else inner * mask, self.lora_b.to(x.dtype)) * self.scale
            output = linear(rows, self.base.weight, bias) + update
        else:
            output = _LowRank.apply(rows, self.base, bias, a, self.lora_b, self.scale, mask)  # type: ignore[no-untyped-call]
        if self.magnitude is not None:
            stretch = self.magnitude / row_norms(self.base.weight, a.detach(), self.lora_b.detach() * self.scale)
            output = output * stretch.to(output.dtype)
            output = output if self.base.bias is None else output + self.base.bias
        return output.reshape(*x.shape[:-1], -1)


@torch.no_grad()
def row_norms(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the Euclidean norm of every row of W + B A in fp32: W [out, in], A [rank, in], B [out, rank]."""
    own = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square()
    crossed = (torch.mm(weight, a.to(weight.dtype).t()).float() * b).sum(dim=1)
    inner = (torch.mm(b, torch.mm(a, a.t())) * b).sum(dim=1)
    total: torch.Tensor = own + 2 * crossed + inner
    return total.clamp(min=0).sqrt()


def pattern_of(name: str, patterns: Mapping[str, Any]) -> str | None:
    """Return the pattern that a layer's name ends in, as PEFT's `rank_pattern` is read: a regular expression of last parts, the first that fits."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", name)), None)


def adaptable(model: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    """Return the names of a model's layers of these kinds, but for an output head and what is trained as it is beside any method."""
    apart = ("lm_head", *getattr(model, "trained_whole", ()))
    layers = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    return [name for name in layers if not any(f"{name}.".startswith(f"{part}.") for part in apart)]


def linear_layers(model: nn.Module, targets: Sequence[str] | str) -> list[str]:
    """Return the names of a model's linear layers among `targets`. Raises ModelError for a target that the model does not have."""
    names = adaptable(model, nn.Linear)
    if targets == ALL_LINEAR:
        return names
    endings = sorted({name.rsplit(".", 1)[-1] for name in names})
    wanted = set(targets)
    found = [name for name in names if not wanted.isdisjoint(_endings(name))]
    for target in targets:
        if not any(target in _endings(name) for name in found):
            raise ModelError(f"no linear layer of this base model is called {target!r}\n    -> {nearest(target, [*endings, ALL_LINEAR])}")
    return found


def _endings(name: str) -> list[str]:
    """Return the ways in which a layer can be named: q_proj, self_attn.q_proj, 0.self_attn.q_proj, ..."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def adapted_layers(model: nn.Module, targets: Sequence[str] | str, ranks: Mapping[str, int]) -> list[str]:
    """Return the names of the linear layers among `targets`. Raises ModelError for one that the model does not have, and for one of `ranks`."""
    names = linear_layers(model, targets)
    if unused := [key for key in ranks if not any(pattern_of(name, {key: 0}) for name in names)]:
        raise ModelError(f"training.adaptation.ranks: no adapted layer is called {unused[0]!r}\n    -> {nearest(unused[0], names)}")
    return names


def attach(
    model: nn.Module,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str] | str,
    seed: int,
    ranks: Mapping[str, int] | None = None,
    stabilised: bool = False,
    decomposed: bool = False,
    packed: bool = False,
) -> list[str]:
    """Freeze a model and put low-rank adapters beside its linear layers; return the layers' names.

    `targets` are the last parts of layer names (such as `q_proj`) or `all-linear`, which leaves the output head alone. `ranks` gives
    layers whose names end so another rank at the same scale. `stabilised` divides alpha by the rank's square root (rsLoRA), `decomposed`
    trains the rows' magnitudes (DoRA), `packed` keeps the layers' own weights in four bits (QLoRA). Raises ModelError for a target or a layer
    that the model does not have, and for a rank that is larger than a layer.
    """
    model.requires_grad_(False)
    patterns = dict(ranks or {})
    names = adapted_layers(model, targets, patterns)
    generator = torch.Generator().manual_seed(seed)
    scale = alpha / (math.sqrt(rank) if stabilised else rank)
    if packed:
        pack_weights(model, names)
    for name in names:
        parent_name, _, attribute = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        base = getattr(parent, attribute)
        own = patterns.get(pattern_of(name, patterns) or "", rank)
        if own > min(base.in_features, base.out_features):
            raise ModelError(f"rank {own} is larger than the layer {name!r} ({base.in_features} x {base.out_features})\n    -> lower training.adaptation.rank")
        layer = LoraLinear(base, own, scale, dropout, generator, decomposed=decomposed)
        # What is drawn stays drawn where the base's weights are not there yet.
        setattr(parent, attribute, layer if base.weight.is_meta else layer.to(base.weight.device))
    return names


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLinear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear))


def set_dropout(model: nn.Module, share: float) -> None:
    """Set the dropout on the input of a model's updates."""
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.dropout = share


def set_enabled(model: nn.Module, enabled: bool) -> None:
    """Switch all low-rank adapters of a model on or off; off gives the exact base model."""
    for _, layer in _layers(model):
        layer.enabled = enabled


def product_distance(model: nn.Module) -> torch.Tensor:
    """Return the squared distance of all adapted weights from the base's. Raises ModelError where rows' magnitudes are trained too."""
    total = torch.zeros(())
    for _, layer in _layers(model):
        if layer.magnitude is not None:
            raise ModelError("training.objectives.start is not worked out for dora\n    -> use training.objectives.kl, or method: lora")
        a = layer.lora_a if layer.directions is None else layer.lora_a * layer.directions[:, None]
        total = total + layer.scale**2 * (torch.mm(a, a.t()) * torch.mm(layer.lora_b.t(), layer.lora_b)).sum()
    return total


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors under PEFT's names."""
    state = {}
    for name, layer in _layers(model):
        state[f"{PREFIX}{name}.lora_A.weight"] = layer.lora_a.detach()
        state[f"{PREFIX}{name}.lora_B.weight"] = layer.lora_b.detach()
        if layer.magnitude is not None:
            state[f"{PREFIX}{name}.lora_magnitude_vector"] = layer.magnitude.detach()
    return state
