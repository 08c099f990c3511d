"""A small description of a decoder model, read from its config.json, and what can be counted from it without loading a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from metier.errors import ModelError

__all__ = ["FAMILIES", "LINEAR", "ModelShape", "layer_parameters", "linear_layers", "linear_weights", "parameters", "read_shape", "shape_of"]

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a decoder layer, in the order in which a token meets them."""

_ATTENTION = LINEAR[:4]
_GATED = LINEAR[4:]

FAMILIES = ("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3")
"""Values of `model_type` whose layers are known here, by their classes in transformers 5."""

_FOUR_NORMS = frozenset({"gemma2", "gemma3_text"})
_QUERY_NORMS = frozenset({"gemma3_text", "qwen3"})


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder model: sizes in numbers of values. `shared_heads` are the heads of keys and values; `norms` those of a layer (2 or 4).

    `rotations` is how many kinds of rotary positions there are, `window` how far the layers with the shortest sight see (None: all the way).
    """

    family: str
    vocabulary: int
    hidden: int
    layers: int
    heads: int
    shared_heads: int
    head_size: int
    inner: int
    tied: bool
    biased: tuple[str, ...]
    norms: int
    softcap: bool
    rotations: int
    window: int | None
    context: int

    @property
    def query_norm(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.family in _QUERY_NORMS

    @property
    def queries(self) -> int:
        """Width of a layer's queries."""
        return self.heads * self.head_size

    @property
    def keys(self) -> int:
        """Width of a layer's keys, and of its values."""
        return self.shared_heads * self.head_size


def read_shape(folder: Path) -> ModelShape:
    """Return the description of the model in a folder. Raises ModelError if its config.json cannot be read or its family is not known here."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    return shape_of(config.to_dict(), where=str(folder))


def shape_of(config: Mapping[str, Any], *, where: str = "this model") -> ModelShape:
    """Return the description of a model from the values of its configuration, defaults filled in. Raises ModelError for an unknown family."""
    family = str(config.get("model_type"))
    if family not in FAMILIES:
        raise ModelError(f"{where} is of the family {family!r}, whose layers cannot be planned for\n    -> known: {', '.join(FAMILIES)}")
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    head_size = config.get("head_dim") or hidden // heads
    attention = _ATTENTION if config.get("attention_bias") else _ATTENTION[:3] if family == "qwen2" else ()
    gated = _GATED if config.get("mlp_bias") else ()
    kinds = set(config.get("layer_types") or ["full_attention"])
    sliding = "sliding_attention" in kinds or family == "mistral"
    return ModelShape(
        family=family,
        vocabulary=int(config["vocab_size"]),
        hidden=hidden,
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        shared_heads=int(config.get("num_key_value_heads") or heads),
        head_size=int(head_size),
        inner=int(config["intermediate_size"]),
        tied=bool(config.get("tie_word_embeddings")),
        biased=(*attention, *gated),
        norms=4 if family in _FOUR_NORMS else 2,
        softcap=config.get("final_logit_softcapping") is not None,
        rotations=len(kinds) if family == "gemma3_text" else 1,
        window=config.get("sliding_window") if sliding else None,
        context=int(config["max_position_embeddings"]),
    )


def linear_layers(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Return (inputs, outputs) of each linear layer of a decoder layer, by name."""
    hidden, queries, keys, inner = shape.hidden, shape.queries, shape.keys, shape.inner
    widths = ((hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden), (hidden, inner), (hidden, inner), (inner, hidden))
    return dict(zip(LINEAR, widths, strict=True))


def linear_weights(shape: ModelShape) -> int:
    """Return the weights of the linear layers of one decoder layer, biases left out: what a token is multiplied by."""
    return sum(inputs * outputs for inputs, outputs in linear_layers(shape).values())


def layer_parameters(shape: ModelShape) -> int:
    """Return the parameters of one decoder layer."""
    biases = sum(outputs for name, (_, outputs) in linear_layers(shape).items() if name in shape.biased)
    return linear_weights(shape) + biases + shape.norms * shape.hidden + (2 * shape.head_size if shape.query_norm else 0)


def parameters(shape: ModelShape) -> int:
    """Return the parameters of the model; an output head that is the embedding counts once."""
    tables = shape.vocabulary * shape.hidden * (1 if shape.tied else 2)
    return tables + shape.layers * layer_parameters(shape) + shape.hidden
