"""From a method's name to trainable parts on a model, and from an adapter's folder to the same parts with what was learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from metier.errors import ModelError
from metier.models.adapterfile import CONFIG
from metier.models.lora import adapted_layers
from metier.models.lorafile import lora_weights
from metier.models.methods.adalora import attach_adaptive
from metier.models.methods.bottleneck import attach_bottlenecks, bottleneck_places, load_bottlenecks
from metier.models.methods.gated import attach_gated
from metier.models.methods.interface import Shape, Tuned
from metier.models.methods.lowrank import attach_low_rank, load_low_rank
from metier.models.methods.names import METHODS, Family
from metier.models.methods.structure import attentions_of
from metier.models.methods.virtual import attach_virtual, load_virtual
from metier.models.methods.weights import attach_weights, layers_to_train, load_weights_of
from metier.models.saved import Saved, read_saved

__all__ = ["attach_method", "check_method", "open_adapter", "open_saved"]


def _attach_watched(model: Any, method: str, shape: Shape, seed: int) -> Tuned:
    return attach_adaptive(model, method, shape, seed) if method == "adalora" else attach_gated(model, method, shape, seed)


_ATTACH: Mapping[Family, Callable[[Any, str, Shape, int], Tuned]] = {
    "adaptive": _attach_watched,
    "low-rank": attach_low_rank,
    "weights": attach_weights,
    "bottleneck": attach_bottlenecks,
    "virtual": attach_virtual,
}
_LOAD: Mapping[str, Callable[[Any, dict[str, Any], dict[str, torch.Tensor]], Tuned]] = {
    "METIER_WEIGHTS": load_weights_of,
    "METIER_BOTTLENECK": load_bottlenecks,
    "PROMPT_TUNING": load_virtual,
    "P_TUNING": load_virtual,
    "PREFIX_TUNING": load_virtual,
}


def attach_method(model: Any, method: str, shape: Shape, *, seed: int) -> Tuned:
    """Freeze a model and give it the trainable parts of a method; untrained, all but virtual tokens leave it the exact base model.

    Raises ModelError for a model that the method cannot be put on.
    """
    return _ATTACH[METHODS[method].family](model, method, shape, seed)


def check_method(model: Any, method: str, shape: Shape) -> None:
    """Raise ModelError for a model that the method cannot be put on; nothing is changed, and a model without its weights (`outline`) will do."""
    family = METHODS[method].family
    if family in ("low-rank", "adaptive"):
        adapted_layers(model, shape.targets, shape.ranks)
    elif family == "bottleneck":
        bottleneck_places(model, parallel=method == "parallel-adapter")
    elif method == "partial":
        layers_to_train(model, method, shape)
    elif method == "prefix":
        attentions_of(model)


def open_adapter(model: Any, folder: Path, *, base: str | None = None) -> Tuned:
    """Put a trained adapter of any method on a model. Raises ModelError if it cannot be read or does not fit (`base`: the model's digest)."""
    return open_saved(model, read_saved(folder, base=base))


def open_saved(model: Any, saved: Saved) -> Tuned:
    """Put an adapter that was read on a model. Raises ModelError if it does not fit."""
    if saved.kind == "LORA":
        return load_low_rank(model, lora_weights(model, saved))
    if saved.kind not in _LOAD:
        known = ", ".join(["LORA", *sorted(_LOAD)])
        raise ModelError(f"{saved.folder / CONFIG} is of type {saved.config.get('peft_type')!r}\n    -> types that can be loaded: {known}")
    try:
        return _LOAD[saved.kind](model, dict(saved.config), dict(saved.tensors))
    except ModelError as error:
        raise ModelError(f"{saved.folder}: {error}") from None
