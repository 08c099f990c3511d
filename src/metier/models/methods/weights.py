"""Training a model's own weights: all of them, or those of the last layers.

A trained layer keeps its weights twice: as the base has them, frozen, which is what `enable(False)` goes back to and what a penalty on
the distance to the start is measured from; and trained, in fp32 while it is trained. Products are made in the base's format: the
gradient of a weight is that of its rounded copy, as in mixed precision (Micikevicius et al. 2018, arXiv 1710.03740).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import embedding, layer_norm, linear

from metier.errors import ModelError
from metier.models.methods.interface import Shape
from metier.models.methods.structure import layers_of
from metier.models.norms import FrozenNorm, normalise

__all__ = ["Weights", "attach_weights", "check_weights", "layers_to_train", "load_weights_of", "trained_layers"]

_PREFIX = "base_model.model."
_KIND = "METIER_WEIGHTS"


def _nothing() -> None:
    """Nothing has to be done."""


class _Trained(nn.Module):
    """A layer whose weights are trained; `base` is as it was."""

    def __init__(self, base: nn.Module, *, keep: bool = False) -> None:
        super().__init__()
        self.base = base
        self.enabled = True
        self.fetch: Callable[[], object] = _nothing
        """Called before the base's own weights are read: where they lie elsewhere, it gets them."""
        for name, value in base.named_parameters(recurse=False):
            self._hold(name, value, keep=keep)

    def _hold(self, name: str, value: torch.Tensor, *, keep: bool) -> None:
        setattr(self, f"trained_{name}", nn.Parameter(value.detach().clone() if keep else value.detach().to(torch.float32, copy=True)))

    def value(self, name: str) -> torch.Tensor:
        """Return the weights that count now: trained, or the base's."""
        if not self.enabled:
            self.fetch()
        found: torch.Tensor = getattr(self, f"trained_{name}") if self.enabled else getattr(self.base, name)
        return found


class TrainedLinear(_Trained):
    """A linear layer whose weights are trained."""

    @property
    def weight(self) -> torch.Tensor:
        """The weights that count now, in the base's format: what an output head is asked for."""
        return self.value("weight").to(self.base.weight.dtype)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for x [..., in_features]."""
        bias = None if self.base.bias is None else self.value("bias").to(x.dtype)
        return linear(x, self.value("weight").to(x.dtype), bias)


class TrainedEmbedding(_Trained):
    """An embedding whose weights are trained."""

    @property
    def weight(self) -> torch.Tensor:
        """The weights that count now, in the base's format."""
        return self.value("weight").to(self.base.weight.dtype)  # type: ignore[arg-type]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors of tokens [..., length]; some families multiply them by a constant of theirs."""
        found = embedding(ids, self.value("weight")).to(self.base.weight.dtype)  # type: ignore[arg-type]
        scale = getattr(self.base, "embed_scale", None)
        return found if scale is None else found * scale.to(found.dtype)


class TrainedNorm(_Trained):
    """A root-mean-square norm whose weight is trained."""

    def __init__(self, base: FrozenNorm, *, keep: bool = False) -> None:
        super().__init__(base)
        self._hold("weight", base.weight, keep=keep)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x / rms(x) * weight over the last dimension."""
        if not self.enabled:
            found: torch.Tensor = self.base(x)
            return found
        return (normalise(x, self.base.epsilon) * self.value("weight").float()).to(x.dtype)  # type: ignore[arg-type]


class TrainedLayerNorm(_Trained):
    """A layer norm whose weight and bias are trained."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (x - mean) / deviation * weight + bias over the last dimensions that the norm has."""
        bias = None if self.base.bias is None else self.value("bias").to(x.dtype)
        return layer_norm(x, self.base.normalized_shape, self.value("weight").to(x.dtype), bias, self.base.eps)  # type: ignore[arg-type]


class _TiedHead(nn.Module):
    """An output head that is the input embedding's weights."""

    def __init__(self, source: TrainedEmbedding) -> None:
        super().__init__()
        self._source = (source,)

    @property
    def weight(self) -> torch.Tensor:
        """The embedding's weights that count now."""
        return self._source[0].weight


_KINDS: tuple[tuple[type[nn.Module], type[_Trained]], ...] = (
    (nn.Linear, TrainedLinear),
    (nn.Embedding, TrainedEmbedding),
    (FrozenNorm, TrainedNorm),
    (nn.LayerNorm, TrainedLayerNorm),
)
_PLAIN = tuple(plain for plain, _ in _KINDS)
_LAST = ("norm", "ln_f", "final_layer_norm", "pooler")
"""What may stand behind a body's last layer: a norm, or what gathers a text (the pooler of BERT)."""


class Weights:
    """Trained weights of a model; see `Tuned`."""

    virtual = 0

    def __init__(self, method: str, layers: dict[str, _Trained]) -> None:
        self.layers = layers
        self._method = method

    def state(self) -> dict[str, torch.Tensor]:
        """Return the trained weights under the base model's names, in the format in which the base has them."""
        found = {}
        for name, layer in self.layers.items():
            for part, parameter in layer.named_parameters(recurse=False):
                kept = part.removeprefix("trained_")
                found[f"{_PREFIX}{name}.{kept}"] = parameter.detach().to(next(_tensors(layer.base)).dtype)
        return found

    def config(self) -> dict[str, Any]:
        """Return the configuration; PEFT has no such method, so the type is Metier's own."""
        return {"peft_type": _KIND, "method": self._method, "layers": len(self.layers)}

    def distance(self) -> torch.Tensor:
        """Return the squared distance of the trained weights from the base's."""
        total = torch.zeros(())
        for layer in self.layers.values():
            base = dict(layer.base.named_parameters(recurse=False)) | dict(layer.base.named_buffers(recurse=False))
            for part, parameter in layer.named_parameters(recurse=False):
                total = total + (parameter - base[part.removeprefix("trained_")].float()).square().sum()
        return total

    def enable(self, on: bool) -> None:
        """Switch between the trained weights and the base's."""
        for layer in self.layers.values():
            layer.enabled = on


def trained_layers(model: nn.Module) -> list[_Trained]:
    """Return the layers of a model whose own weights are trained, each with the base's weights beside."""
    return [module for module in model.modules() if isinstance(module, _Trained)]


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def layers_to_train(model: Any, method: str, shape: Shape) -> list[str]:
    """Return the names of the layers to train. Raises ModelError for a model that has no such layers."""
    named: dict[str, nn.Module] = {name: module for name, module in model.named_modules() if isinstance(module, _PLAIN)}
    head, tied = _head_of(model)
    if method == "full":
        _all_covered(model, named)
        return [name for name, module in named.items() if not (tied and module is head)]
    layers = list(layers_of(model).values())
    if shape.layers > len(layers):
        raise ModelError(f"training.adaptation.layers is {shape.layers}, and this base model has {len(layers)} layers")
    if shape.head and tied:
        raise ModelError("the output head of this base model is its input embedding, so it cannot be trained alone\n    -> leave training.adaptation.head out")
    body = model.get_decoder()
    parts = [*layers[-shape.layers :], *(getattr(body, name, None) for name in _LAST), head if shape.head else None]
    last = {id(module) for part in parts if part is not None for module in part.modules()}
    # What is trained as it is, whatever the method, is not trained twice.
    apart = tuple(f"{name}." for name in getattr(model, "trained_whole", ()))
    return [name for name, module in named.items() if id(module) in last and not f"{name}.".startswith(apart)]


def _head_of(model: Any) -> tuple[Any, bool]:
    """Return a language model's output head and whether it is the input embedding; (None, False) for a model with another kind of head."""
    head = model.get_output_embeddings()
    return head, head is not None and head.weight is model.get_input_embeddings().weight


def _all_covered(model: nn.Module, named: dict[str, nn.Module]) -> None:
    covered = {id(parameter) for module in named.values() for parameter in module.parameters(recurse=False)}
    left = [name for name, parameter in model.named_parameters() if id(parameter) not in covered]
    if left:
        raise ModelError(f"training.method: full cannot train {left[0]!r} of this base model ({len(left)} such weights)\n    -> use training.method: partial")


def _replace(model: Any, names: list[str], *, keep: bool) -> dict[str, _Trained]:
    source, (_, tied) = model.get_input_embeddings(), _head_of(model)
    found: dict[str, _Trained] = {}
    for name in names:
        parent_name, _, attribute = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        base = getattr(parent, attribute)
        kind = next(trained for plain, trained in _KINDS if isinstance(base, plain))
        found[name] = kind(base, keep=keep)
        setattr(parent, attribute, found[name])
        if tied and base is source:
            model.set_output_embeddings(_TiedHead(found[name]))  # type: ignore[arg-type]
    return found


def attach_weights(model: Any, method: str, shape: Shape, seed: int) -> Weights:
    """Freeze a model but for the layers that `full` or `partial` trains. Raises ModelError for a model that has no such layers."""
    del seed
    model.requires_grad_(False)
    return Weights(method, _replace(model, layers_to_train(model, method, shape), keep=False))


def load_weights_of(model: Any, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Weights:
    """Put the trained weights of an adapter file into a model. Raises ModelError if they do not fit."""
    names = check_weights(model, tensors)
    model.requires_grad_(False)
    layers = _replace(model, names, keep=True)
    for full, tensor in tensors.items():
        name, _, part = full.removeprefix(_PREFIX).rpartition(".")
        getattr(layers[name], f"trained_{part}").requires_grad_(False).copy_(tensor)
    return Weights(str(config.get("method")), layers)


def check_weights(model: Any, tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the layers whose trained weights an adapter file holds. Raises ModelError if they do not fit the model."""
    names = list(dict.fromkeys(name.removeprefix(_PREFIX).rpartition(".")[0] for name in tensors))
    known = dict(model.named_modules())
    if odd := [name for name in names if not isinstance(known.get(name), _PLAIN)]:
        raise ModelError(f"the adapter does not fit this base model: it has no layer {odd[0]!r} that could be trained")
    for full, tensor in tensors.items():
        name, _, part = full.removeprefix(_PREFIX).rpartition(".")
        own = dict(known[name].named_parameters(recurse=False)) | dict(known[name].named_buffers(recurse=False))
        if part not in own or own[part].shape != tensor.shape:
            raise ModelError(f"the adapter does not fit this base model: {full!r} has shape {tuple(tensor.shape)}")
    return names
