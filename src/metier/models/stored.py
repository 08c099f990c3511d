"""Models that are made before their weights are read: what a process fills that has room for a share of them alone.

Parameters are on the meta device, which has shapes and no numbers; buffers, which are worked out, and vectors (norms, biases) are there. A method is put on
such a model as on any other. Then each parameter is read from its place on disk, one at a time, as much of it as is wanted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from metier.errors import ModelError
from metier.models.base import Base
from metier.models.methods.weights import trained_layers

__all__ = ["Stored", "made_without_weights"]

_INDEX = "model.safetensors.index.json"
_INSTEAD = "write engine.distribution: replicated, or save the model again with save_pretrained of transformers 5"


class Stored:
    """Where on disk the parameters lie that a model has not got yet."""

    def __init__(self, base: Base) -> None:
        """Raise ModelError if the files cannot be read."""
        self._name = base.name
        self._files: dict[str, Any] = {}
        self._places: dict[int, tuple[torch.Tensor, str]] = {}
        try:
            for path in _files(base.folder):
                # Mapped, and open as long as this is there: nothing of it is copied until it is read.
                file: Any = safe_open(path, "pt")
                self._files |= dict.fromkeys(file.keys(), file)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelError(f"the weights of {base.name} cannot be read: {error}\n    -> restore the files") from None

    def find(self, model: Any) -> list[str]:
        """Note where each parameter lies that a model lacks, and return the names of those that lie nowhere, or have another shape there."""
        prefix, missing = f"{model.base_model_prefix}.", []
        for name, parameter in model.named_parameters():
            key = next((key for key in (name, name.removeprefix(prefix), f"{prefix}{name}") if key in self._files), None)
            if key is None or tuple(self._files[key].get_slice(key).get_shape()) != tuple(parameter.shape):
                missing.append(name)
            else:
                self._places[id(parameter)] = (parameter, key)
        return missing

    def fill_vectors(self, model: nn.Module) -> None:
        """Read norms and biases: they are small, and looked at before the rest is there."""
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.is_meta and parameter.dim() < 2 and id(parameter) in self._places:
                    found = self.read(self._places.pop(id(parameter))[1]).to(parameter.dtype)
                    setattr(module, name, nn.Parameter(found, requires_grad=parameter.requires_grad))

    def keys(self, model: nn.Module) -> dict[str, str]:
        """Return for each parameter that a model lacks, by its name there now, the name on disk; one that is trained begins as the base's beside it."""
        known = {place: key for place, (_, key) in self._places.items()}
        for layer in trained_layers(model):
            for name, parameter in layer.named_parameters(recurse=False):
                base = getattr(layer.base, name.removeprefix("trained_"))
                if id(base) in known:
                    known[id(parameter)] = known[id(base)]
        return {name: known[id(parameter)] for name, parameter in model.named_parameters() if parameter.is_meta and id(parameter) in known}

    def read(self, key: str, start: int = 0, stop: int | None = None) -> torch.Tensor:
        """Return rows `start` to `stop` (all) of a tensor on disk, as it is there."""
        found: torch.Tensor = self._files[key].get_slice(key)[start:stop]
        return found


def _files(folder: Path) -> Iterator[Path]:
    index = folder / _INDEX
    if index.is_file():
        yield from (folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values())))
    else:
        yield from sorted(folder.glob("*.safetensors"))


def made_without_weights(make: Callable[[], Any], base: Base, dtype: torch.dtype) -> tuple[Any, list[str]]:
    """Return what `make` makes in a format, its weights still on disk (`stored`, see `Stored`), and the names of parameters that are not there.

    Raises ModelError for a model whose weights are packed, or partly kept in another format: loading them is more than reading.
    """
    # Whoever only asks a model has no need of it, and it takes its time.
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = make()
    # Each was made anew when it was put on the meta device: what was one has to be one again.
    model.tie_weights()
    strict = getattr(model, "_keep_in_fp32_modules_strict", None)
    if getattr(model.config, "quantization_config", None) is not None or (strict and dtype != torch.float32):
        raise ModelError(f"{base.name} is packed, or keeps some weights in another format, and cannot be read part by part\n    -> {_INSTEAD}")
    model.stored = Stored(base)
    missing = model.stored.find(model)
    model.stored.fill_vectors(model)
    return model, missing
