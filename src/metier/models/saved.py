"""Adapters on disk: `adapter_model.safetensors` and `adapter_config.json`, written as PEFT has them and read as strangers' files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
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
from metier.store import streamed_atomically, write_atomically

__all__ = ["Saved", "check_base", "file_order", "read_saved", "stream_tensors", "write_saved", "write_tensors"]

_PREFIX = "base_model.model."

_FORMATS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""Names of formats in a file of safetensors, of what a checkpoint can hold."""


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


def file_order(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of tensors in the order in which a file of safetensors holds them: wide formats first, then by name."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def stream_tensors(path: Path, tensors: Mapping[str, torch.Tensor], whole: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Write tensors as safetensors, one after the other, so that no more than one of them is held whole; `whole` makes it so.

    They are made whole in the file's order. The file is the one that safetensors writes itself: the length of a JSON header (8 bytes, little-endian), the
    header, the numbers. Raises StoreError if the disk does not take it.
    """
    ordered = file_order(tensors)
    header, place = {}, 0
    for name in ordered:
        tensor = tensors[name]
        end = place + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _FORMATS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with streamed_atomically(path) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            stream.write(whole(tensors[name]).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


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
