"""What training leaves of a model with a head: in PEFT's format for low-rank adapters (the head under `modules_to_save`), in that of transformers else.

Either folder holds `labels.json` (see metier.models.labels) beside files that the libraries load by themselves::

    lora   adapter_config.json  adapter_model.safetensors
    full   config.json  model.safetensors  tokenizer.json  tokenizer_config.json
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from torch import nn

from metier.errors import ModelError
from metier.models import lora
from metier.models.adapterfile import CONFIG, MODEL, TOKENIZER, WEIGHTS
from metier.models.base import Base
from metier.models.heads import load_with_head, whole_in_single_precision
from metier.models.labels import Labelling, read_labelling
from metier.models.saved import check_base, write_saved, write_tensors
from metier.store import write_atomically

__all__ = ["LowRank", "load_trained", "save_trained"]

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class LowRank:
    """Rank, strength and dropout of low-rank adapters."""

    rank: int
    alpha: float
    dropout: float = 0.0


def save_trained(model: nn.Module, folder: Path, labelling: Labelling, *, base: Base, adapter: LowRank | None, tokenizer: Any) -> None:
    """Write a trained model with a head: its adapters and head, or (`adapter` None) all of its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    labelling.write(folder)
    if adapter is not None:
        _save_adapter(model, folder, base.name, adapter, labelling)
        return
    write_tensors(folder / MODEL, _weights(model))
    config: Any = model.config
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        config.architectures = [type(model).__name__]
        config.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for name in ("config.json", *TOKENIZER):
            write_atomically(folder / name, (Path(aside) / name).read_bytes())


def _save_adapter(model: nn.Module, folder: Path, base: str, adapter: LowRank, labelling: Labelling) -> None:
    state = lora.adapter_state(model)
    targets = sorted({key.removesuffix(".weight").split(".")[-2] for key in state})
    state |= _whole_parts(model)
    config = {
        "peft_type": "LORA",
        "task_type": "TOKEN_CLS" if labelling.by_word else "SEQ_CLS",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": targets,
        "modules_to_save": [name.rsplit(".", 1)[-1] for name in model.trained_whole],  # type: ignore[union-attr]
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_saved(folder, config, state)


def _whole_parts(model: Any) -> dict[str, torch.Tensor]:
    """Return the tensors of what is trained as it is beside adapters, under PEFT's names."""
    parts = {name: model.get_submodule(name).state_dict() for name in model.trained_whole}
    return {f"{_PREFIX}{name}.{key}": value.detach() for name, state in parts.items() for key, value in state.items()}


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's weights by name; those that two places share once, as transformers writes them."""
    shared: dict[int, str] = {}
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if shared.setdefault(tensor.data_ptr(), name) == name}


def load_trained(base: Base, folder: Path, dtype: torch.dtype) -> tuple[nn.Module, Labelling]:
    """Return base model, head and what was trained of them. Raises ModelError if the folder is not whole or was trained on another base model."""
    labelling = read_labelling(folder)
    check_base(folder, base.digest)
    adapted = (folder / WEIGHTS).is_file()
    model = load_with_head(base, labelling, dtype, seed=0, frozen=adapted)
    if adapted:
        _put_adapter(model, folder)
    else:
        _fill(_weights(model), folder / MODEL)
    return model, labelling


def _put_adapter(model: nn.Module, folder: Path) -> None:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        rank, alpha, targets = int(config["r"]), float(config["lora_alpha"]), config["target_modules"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG} cannot be read ({error})\n    -> train again, or restore the file") from None
    lora.attach(model, rank=rank, alpha=alpha, dropout=0.0, targets=targets, seed=0)
    whole_in_single_precision(model)
    _fill(lora.adapter_state(model) | _whole_parts(model), folder / WEIGHTS)


def _fill(places: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy the tensors of a file into the places of the same names. Raises ModelError for what is missing, of another shape or not finite."""
    try:
        state = parse_tensors(path.read_bytes())
    except (OSError, SafetensorError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as safetensors ({error})\n    -> train again, or restore the file") from None
    if odd := sorted(set(places) ^ set(state)):
        raise ModelError(f"{path} does not fit this base model: {len(odd)} tensors differ, first {odd[0]!r}")
    with torch.no_grad():
        for name, place in places.items():
            if state[name].shape != place.shape:
                raise ModelError(f"{path}: {name!r} has shape {tuple(state[name].shape)}, the base model needs {tuple(place.shape)}")
            if not torch.isfinite(state[name]).all():
                raise ModelError(f"{path}: {name!r} holds values that are not finite\n    -> do not use this model; train again")
            place.copy_(state[name])
