"""What training leaves of a model with a head: the method's own adapter with the head under `modules_to_save`, or all weights as transformers writes them.

Either folder holds `labels.json` (see metier.models.labels) beside files that the libraries load by themselves::

    full         config.json  model.safetensors  tokenizer.json  tokenizer_config.json
    all others   adapter_config.json  adapter_model.safetensors
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import nn

from metier.errors import ModelError
from metier.models.adapterfile import MODEL, TOKENIZER, WEIGHTS, weights_of
from metier.models.base import Base
from metier.models.changes import weight_changes
from metier.models.heads import load_with_head, whole_in_single_precision
from metier.models.labels import Labelling, read_labelling
from metier.models.lora import PREFIX
from metier.models.merge import STORED, stored_tensors
from metier.models.methods import Tuned, open_saved
from metier.models.saved import Saved, check_base, read_saved, write_saved, write_tensors
from metier.store import write_atomically

__all__ = ["load_merged", "load_trained", "save_trained"]

_KEPT = "modules_to_save"
"""PEFT's key for what is stored as it is beside an adapter."""


def save_trained(model: Any, folder: Path, labelling: Labelling, *, base: Base, tuned: Tuned | None, tokenizer: Any) -> None:
    """Write a trained model with a head: what a method trained of it and the head, or (`tuned` None) all of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    labelling.write(folder)
    if tuned is not None:
        about: dict[str, Any] = {"base_model_name_or_path": base.name, "task_type": "TOKEN_CLS" if labelling.by_word else "SEQ_CLS"}
        about[_KEPT] = [name.rsplit(".", 1)[-1] for name in model.trained_whole]
        config = tuned.config() | about
        write_saved(folder, config, tuned.state() | _whole_parts(model, _prefix(config)))
        return
    write_tensors(folder / MODEL, _weights(model))
    config = model.config
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        config.architectures = [type(model).__name__]
        config.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for name in ("config.json", *TOKENIZER):
            write_atomically(folder / name, (Path(aside) / name).read_bytes())


def _prefix(config: Mapping[str, Any]) -> str:
    """Return what PEFT puts before a model's own names: it wraps a model twice, but for virtual tokens only once."""
    return "base_model." if "num_virtual_tokens" in config else PREFIX


def _whole_parts(model: Any, prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors of what is trained as it is beside adapters, under PEFT's names."""
    parts = {name: model.get_submodule(name).state_dict() for name in model.trained_whole}
    return {f"{prefix}{name}.{key}": value.detach() for name, state in parts.items() for key, value in state.items()}


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's weights by name; those that two places share once, as transformers writes them."""
    shared: dict[int, str] = {}
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if shared.setdefault(tensor.data_ptr(), name) == name}


def load_trained(base: Base, folder: Path, dtype: torch.dtype) -> tuple[nn.Module, Labelling, int]:
    """Return base model, head and what was trained of them, what they answer, and how many virtual tokens begin each text.

    Raises ModelError if the folder is not whole or was trained on another base model.
    """
    labelling = read_labelling(folder)
    check_base(folder, base.digest)
    saved = read_saved(folder) if weights_of(folder) == WEIGHTS else None
    model = load_with_head(base, labelling, dtype, seed=0, frozen=saved is not None)
    if saved is not None:
        return model, labelling, _put_adapter(model, saved)
    _fill(_weights(model), _read(folder / MODEL), folder / MODEL)
    return model, labelling, 0


def load_merged(base: Base, folder: Path) -> tuple[Any, Labelling]:
    """Return a model of transformers with a head and what was trained put into its own weights, and its labelling.

    The base's weights have the format in which they are stored; what is trained as it is (the head) stays in fp32, which a reader may round.
    Raises ModelError as `load_trained` does, and for a method whose part cannot be put into weights.
    """
    labelling = read_labelling(folder)
    check_base(folder, base.digest)
    model: Any
    if weights_of(folder) != WEIGHTS:
        model = load_with_head(base, labelling, torch.float32, seed=0, frozen=False)
        _fill(_weights(model), _read(folder / MODEL), folder / MODEL)
        return model, labelling
    dtype = max((item.dtype for item in stored_tensors(base.folder).values()), key=lambda name: STORED[name].itemsize)
    # Whether a family's norms multiply by one plus their weight is only known of a model whose norms were looked at.
    looked_at = load_with_head(base, labelling, torch.float32, seed=0, frozen=True)
    whole, own = _parted(looked_at, read_saved(folder))
    changes = weight_changes(looked_at, own)
    model = load_with_head(base, labelling, STORED[dtype], seed=0, frozen=False)
    places = model.state_dict()
    with torch.no_grad():
        for name, change in changes.items():
            places[name].copy_(change(places[name].float()))
    for name in model.trained_whole:
        model.get_submodule(name).float()
    _fill(_whole_parts(model, _prefix(own.config)), whole, folder / WEIGHTS)
    return model, labelling


def _parted(model: Any, saved: Saved) -> tuple[dict[str, torch.Tensor], Saved]:
    """Return what is stored as it is beside an adapter (the head), and the adapter without it."""
    names = _whole_parts(model, _prefix(saved.config))
    own = {name: tensor for name, tensor in saved.tensors.items() if name not in names}
    config = {key: value for key, value in saved.config.items() if key != _KEPT}
    return {name: saved.tensors[name] for name in names if name in saved.tensors}, replace(saved, config=config, tensors=own)


def _put_adapter(model: Any, saved: Saved) -> int:
    """Put a trained adapter and head on a model and return how many virtual tokens begin each text."""
    whole, own = _parted(model, saved)
    tuned = open_saved(model, own)
    whole_in_single_precision(model)
    _fill(_whole_parts(model, _prefix(saved.config)), whole, saved.folder / WEIGHTS)
    return tuned.virtual


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        state: dict[str, torch.Tensor] = parse_tensors(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({error})\n    -> train again, or restore the file") from None
    return state


def _fill(places: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy tensors of a file into the places of the same names. Raises ModelError for what is missing, of another shape or not finite."""
    if odd := sorted(set(places) ^ set(state)):
        raise ModelError(f"{path} does not fit this base model: {len(odd)} tensors differ, first {odd[0]!r}")
    with torch.no_grad():
        for name, place in places.items():
            if state[name].shape != place.shape:
                raise ModelError(f"{path}: {name!r} has shape {tuple(state[name].shape)}, the base model needs {tuple(place.shape)}")
            if not torch.isfinite(state[name]).all():
                raise ModelError(f"{path}: {name!r} holds values that are not finite\n    -> do not use this model; train again")
            place.copy_(state[name])
