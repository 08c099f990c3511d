"""Adapters on disk: `adapter_model.safetensors` and `adapter_config.json`, written as PEFT has them and read as strangers' files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize

from metier.artifacts import MANIFEST
from metier.digest import digest_bytes
from metier.errors import ModelError
from metier.models.adapterfile import CONFIG, WEIGHTS
from metier.store import write_atomically

__all__ = ["Saved", "check_base", "read_saved", "write_saved", "write_tensors"]

_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Saved:
    """An adapter as it was read, not yet put on a model: its folder, configuration, tensors, and the SHA-256 of the bytes, by file."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]
    files: Mapping[str, str]

    @property
    def kind(self) -> str:
        """The configuration's `peft_type`."""
        return str(self.config.get("peft_type"))


def write_saved(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write an adapter's two files. Raises StoreError if the disk does not take them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS, tensors)
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors. Raises StoreError if the disk does not take them."""
    # Not save_file: the error that it raises on a full disk is no OSError.
    write_atomically(path, serialize({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"}))


def read_saved(folder: Path, *, base: str | None = None) -> Saved:
    """Read an adapter's files; the digests are of the very bytes that were parsed.

    Raises ModelError if they cannot be read, hold NaN or infinities, or say of themselves that they belong to another base model than the
    one with the digest `base`.
    """
    try:
        about, data = (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise ModelError(f"{folder} holds no readable adapter ({error})\n    -> name the folder of a finished adapter") from None
    try:
        config: Mapping[str, Any] = json.loads(about)
        config.get("peft_type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{folder} holds no readable {CONFIG} ({error})\n    -> name the folder of a finished adapter") from None
    check_base(folder, base)
    try:
        tensors = parse_tensors(data)
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"{folder / WEIGHTS} cannot be read as safetensors ({error})\n    -> train again, or restore the file") from None
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise ModelError(f"{folder}: {name.removeprefix(_PREFIX)!r} holds values that are not finite\n    -> do not use this adapter; train again")
    return Saved(folder, config, tensors, {CONFIG: digest_bytes(about), WEIGHTS: digest_bytes(data)})


def check_base(folder: Path, base: str | None) -> None:
    """Refuse an adapter whose own manifest says that it was trained on other weights than these."""
    manifest = folder / MANIFEST
    if base is None or not manifest.is_file():
        return
    try:
        trained = json.loads(manifest.read_bytes())["facts"]["base"]
        name, digest = trained["name"], trained["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{manifest} does not say which base model the adapter belongs to ({error})\n    -> train again, or restore the file") from None
    if digest != base:
        raise ModelError(f"{folder} was trained on another base model ({name}, {str(digest)[:12]}) than the one here ({base[:12]})\n    -> train again")
