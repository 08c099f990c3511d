"""Where methods find their places in a model's body: its layers, their attentions and blocks, as decoders and encoders name them."""

from __future__ import annotations

from typing import Any

from torch import nn

from metier.errors import ModelError

__all__ = ["attentions_of", "layers_of"]

_KEYS = ("k_proj", "key")
"""Names of the layer that makes an attention's keys: of Llama's kin, of BERT's."""


def layers_of(model: Any) -> dict[str, nn.Module]:
    """Return the layers of a model's body by name, the first one first. Raises ModelError for a model without a list of as many as it says it has."""
    count = int(model.config.get_text_config().num_hidden_layers)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return {f"{name}.{number}": layer for number, layer in enumerate(module)}
    raise ModelError("this base model has no list of layers that this method could work on\n    -> use training.method: lora")


def attentions_of(model: Any) -> list[Any]:
    """Return the attentions of a model's layers, in order. Raises ModelError for a layer that has none with keys of its own."""
    found = []
    for name, layer in layers_of(model).items():
        attention = next((module for module in layer.modules() if hasattr(module, "layer_idx") and any(hasattr(module, key) for key in _KEYS)), None)
        if attention is None:
            raise ModelError(f"the layer {name!r} of this base model makes no keys that a prefix could stand before\n    -> use training.method: prompt")
        found.append(attention)
    return found
