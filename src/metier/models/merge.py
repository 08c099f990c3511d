"""What was trained put into the weights of its base model: worked out in fp32, stored in the base's own number format.

Only a full-precision base takes it. Rounding the sum to 4 or 8 bits loses what the adapter learnt, and the adapter was not learnt
for a base that somebody rounded afterwards; the reported losses are in peft's issues 2321 and 1043. The base's files are copied and
the changed numbers overwritten in place, so everything that the adapter does not touch stays byte for byte, shards and names included.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metier.errors import ModelError
from metier.models.changes import Change

__all__ = ["STORED", "Stored", "merge_weights", "stored_tensors"]

STORED: Mapping[str, torch.dtype] = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Number formats that an adapter may be merged into: safetensors' names and torch's."""

_COUNTED = "I64"
"""Format of indices: no way to pack weights has it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor lies: its file, its number format, its shape, its first byte and how many there are."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self) -> torch.Tensor:
        """Return the tensor in its own format."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            data = bytearray(stream.read(self.size))
        return torch.frombuffer(data, dtype=STORED[self.dtype]).reshape(self.shape)


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Return every tensor of a model folder's safetensors files by name, but for places that are counted (I64, as BERT's position_ids).

    The format is that of safetensors 0.x: eight bytes of little-endian header length, a JSON header, then the numbers. Raises ModelError
    for a model that is stored quantised, and for a file that cannot be read.
    """
    config = json.loads((folder / "config.json").read_bytes())
    if (quantised := config.get("quantization_config")) is not None:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, Mapping) else "unknown"
        raise ModelError(
            f"the base model in {folder} is stored quantised ({method}): an adapter is only merged into full precision\n"
            "    -> name the full-precision model as base, or export with --format vllm, which leaves the adapter apart"
        )
    found: dict[str, Stored] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            found |= _header(file)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{file} cannot be read as safetensors ({error})\n    -> restore the base model's file") from None
    found = {name: item for name, item in found.items() if item.dtype != _COUNTED}
    odd = sorted({item.dtype for item in found.values()} - STORED.keys())
    if odd:
        raise ModelError(
            f"the base model in {folder} holds numbers of the format {', '.join(odd)}: an adapter is only merged into {', '.join(STORED)}\n"
            "    -> name the full-precision model as base"
        )
    return found


def _header(file: Path) -> dict[str, Stored]:
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    entries = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        if last - first < math.prod(entry["shape"]):
            raise ValueError(f"{name} has {last - first} bytes for the shape {entry['shape']}")
        entries[name] = Stored(file, str(entry["dtype"]), tuple(entry["shape"]), 8 + length + first, last - first)
    return entries


def merge_weights(base: Path, changes: Mapping[str, Change], target: Path, *, step: Callable[[str], None] = lambda _: None) -> None:
    """Write the base's safetensors files into `target` with changes made to the tensors of these names (see `metier.models.changes`).

    `step` is told each changed tensor. One tensor is in memory at a time. Raises ModelError for a quantised base, and where a changed
    tensor has no tensor of its name and shape in the base's files.
    """
    tensors = stored_tensors(base)
    missing = sorted(name for name in changes if name not in tensors)
    if missing:
        raise ModelError(
            f"{len(missing)} changed tensors have none of their name in {base} (first: {missing[0]})\n"
            "    -> save the base model with save_pretrained of the installed transformers, train again, and export that"
        )
    for file in sorted(base.glob("*.safetensors*")):
        shutil.copyfile(file, target / file.name)
    for name, change in sorted(changes.items()):
        place = tensors[name]
        merged = change(place.read().float()).to(STORED[place.dtype])
        if tuple(merged.shape) != place.shape:
            raise ModelError(
                f"{name}: the base's files hold the shape {place.shape}, what was trained has {tuple(merged.shape)}\n    -> restore the base model"
            )
        if not torch.isfinite(merged).all():
            raise ModelError(f"{name}: the sum of base and adapter does not fit {place.dtype}: it has infinities\n    -> use a base stored in bf16 or fp32")
        with (target / place.file.name).open("r+b") as stream:
            stream.seek(place.start)
            stream.write(merged.contiguous().view(torch.uint8).numpy().tobytes())
        step(name)
