"""What a trained adapter makes of its base model's own weights, tensor by tensor, where it can be said so: W + scale B A, or other weights.

Low-rank updates are sums (DoRA's: sums whose rows are stretched), trained weights take the place of the base's. What is computed between the base's
weights, as a bottleneck's nonlinear part is, or stands before the text, as virtual tokens do, is no change of weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch

from metier.errors import ModelError
from metier.models.lora import PREFIX
from metier.models.lorafile import AdapterWeights, lora_weights
from metier.models.methods.weights import check_weights
from metier.models.norms import FrozenNorm
from metier.models.saved import Saved

__all__ = ["Change", "low_rank_changes", "weight_changes"]

Change: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""From a tensor of the base model, in fp32, to what takes its place, in fp32; the tensor given may be overwritten."""

_A, _B, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"


def weight_changes(model: Any, saved: Saved) -> dict[str, Change]:
    """Return what a trained adapter makes of a model's tensors, by their names in the model. Nothing has to be attached to `model` yet.

    Raises ModelError for an adapter that is no change of weights, and for one that does not fit the model.
    """
    if saved.kind == "LORA":
        return low_rank_changes(lora_weights(model, saved))
    if saved.kind == "METIER_WEIGHTS":
        check_weights(model, saved.tensors)
        return _replaced(model, saved.tensors)
    raise ModelError(f"an adapter of type {saved.kind!r} is no change of weights and cannot be merged\n    -> serve it with metier serve")


def low_rank_changes(adapter: AdapterWeights) -> dict[str, Change]:
    """Return a low-rank adapter's changes. Raises ModelError for one that is not of the plain low-rank kind."""
    odd = sorted(name for name in adapter.tensors if not name.endswith((_A, _B, _MAGNITUDE)))
    if odd:
        raise ModelError(f"the adapter holds {odd[0]!r}, which is no part of a low-rank update and cannot be added to weights")
    layers = sorted(name.removesuffix(_A).removeprefix(PREFIX) for name in adapter.tensors if name.endswith(_A))
    return {f"{name}.weight": partial(_added, adapter, name) for name in layers}


def _added(adapter: AdapterWeights, name: str, weight: torch.Tensor) -> torch.Tensor:
    a, b = (adapter.tensors[f"{PREFIX}{name}{side}"].float() for side in (_A, _B))
    whole = weight.addmm_(b, a, alpha=adapter.scale(name))
    magnitude = adapter.tensors.get(f"{PREFIX}{name}{_MAGNITUDE}")
    if magnitude is not None:
        whole.mul_((magnitude.float() / whole.norm(dim=1))[:, None])
    return whole


def _replaced(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, Change]:
    found: dict[str, Change] = {}
    for full, tensor in tensors.items():
        name = full.removeprefix(PREFIX)
        layer = model.get_submodule(name.rpartition(".")[0])
        # Families whose norms multiply by one plus the weight are trained, and kept, as the sum.
        found[name] = partial(_other, tensor, layer.offset if isinstance(layer, FrozenNorm) else 0.0)
    return found


def _other(tensor: torch.Tensor, offset: float, weight: torch.Tensor) -> torch.Tensor:
    del weight
    return tensor.float() - offset
