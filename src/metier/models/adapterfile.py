"""The files of an adapter, or of a model with a head, looked at without running or trusting them: safetensors only, sound header, right rank, finite numbers.

Read with numpy alone; the weights are mapped, not copied, and torch is not loaded. The format is that of safetensors 0.x:
eight bytes of little-endian header length, a JSON header of name -> dtype, shape and offsets, then the numbers without gaps.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["ADAPTER_FILES", "CONFIG", "LABEL_FILES", "MODEL", "TOKENIZER", "WEIGHTS", "adapter_faults", "weights_of"]

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
MODEL = "model.safetensors"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
LABEL_FILES = ("labels.json", "config.json", MODEL, *TOKENIZER)
"""What a model with a head has beside, or in the place of, an adapter's files."""
ADAPTER_FILES = (WEIGHTS, CONFIG, "chat_template.jinja", *LABEL_FILES)
"""The files that a trained model consists of; nothing else belongs in its folder."""

_MOST_HEADER = 100_000_000
_NAME = re.compile(r"base_model\.model\.(?P<layer>.+)\.lora_(?:(?P<side>[AB])\.weight|magnitude_vector)")
# Type of adapter -> the names its tensors have. LORA is PEFT's, so are the three of virtual tokens; the others are Metier's own.
_NAMES: Mapping[str, re.Pattern[str]] = {
    "LORA": _NAME,
    "PROMPT_TUNING": re.compile("prompt_embeddings"),
    "P_TUNING": re.compile("prompt_embeddings"),
    "PREFIX_TUNING": re.compile("prompt_embeddings"),
    "METIER_BOTTLENECK": re.compile(r"base_model\.model\..+\.(?:down|up)\.weight"),
    "METIER_WEIGHTS": re.compile(r"base_model\.model\..+\.(?:weight|bias)"),
}
_CODE_KEYS = ("auto_map", "trust_remote_code", "auto_mapping", "custom_modules", "runtime_config")
# dtype -> (numpy's name of the raw words, mask whose bits are all set in infinities and NaN; IEEE 754 and bfloat16)
_WORDS: Mapping[str, tuple[str, int]] = {"F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}


def adapter_faults(folder: Path, *, rank: int | None = None, base: str | None = None, trained_on: str | None = None) -> list[str]:
    """Return what is wrong with the files of an adapter, or of a whole model with a head, in words; none means that they may be loaded.

    `rank` is what the run says the adapter has; `base` is the digest of the base model it would be put on and `trained_on`
    that of the one it was made for.
    """
    faults = list(_stray(folder))
    if base is not None and trained_on is not None and base != trained_on:
        faults.append(f"it was trained on the base model {trained_on[:12]}, not on {base[:12]}")
    if weights_of(folder) == MODEL:
        return faults + _weights(folder / MODEL, None)
    config, found = _config(folder / CONFIG)
    faults += found
    if config is not None and rank is not None and config.get("r") != rank:
        faults.append(f"{CONFIG} says rank {config.get('r')!r}, the run says {rank}")
    return faults + _weights(folder / WEIGHTS, config)


def weights_of(folder: Path) -> str:
    """Return the name of the file that holds what was trained: all weights of a model, or those of an adapter."""
    return MODEL if (folder / MODEL).is_file() and not (folder / WEIGHTS).is_file() else WEIGHTS


def _stray(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield f"{name} is a symbolic link"
        elif path.suffix in {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npz", ".npy"}:
            yield f"{name} is not safetensors: such files can run code when they are read"


def _config(path: Path) -> tuple[dict[str, Any] | None, list[str]]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return None, [f"{CONFIG} cannot be read ({type(error).__name__})"]
    if not isinstance(config, dict):
        return None, [f"{CONFIG} is not a mapping"]
    faults = [f"{CONFIG} asks to run code of its own ({key})" for key in _CODE_KEYS if config.get(key)]
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in _NAMES:
        faults.append(f"{CONFIG} is of type {kind!r}, not {', '.join(_NAMES)}")
    if kind == "LORA" and (not isinstance(config.get("r"), int) or isinstance(config.get("r"), bool) or config["r"] < 1):
        faults.append(f"{CONFIG} has no whole rank above 0")
    return config, faults


def _header(path: Path) -> tuple[dict[str, Any], int]:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or not 2 <= length <= min(_MOST_HEADER, size - 8):
            raise ValueError("the header is longer than the file")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("the header is not a mapping")
    header.pop("__metadata__", None)
    end = 0
    for name, entry in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if start != end or stop < start:
            raise ValueError(f"{name} overlaps another tensor, or a gap stands before it")
        end = stop
    if 8 + length + end != size:
        raise ValueError(f"the file has {size} bytes, its header needs {8 + length + end}")
    return header, 8 + length


def _weights(path: Path, config: Mapping[str, Any] | None) -> list[str]:
    if not path.is_file():
        return [f"{path.name} is missing"]
    try:
        header, start = _header(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return [f"{path.name} is not a sound safetensors file ({error})"]
    if not header:
        return [f"{path.name} holds no tensor"]
    saved = {str(name) for name in (config or {}).get("modules_to_save") or ()}
    faults = []
    kind = str(config.get("peft_type")) if config is not None else "LORA"
    pattern = _NAMES.get(kind, _NAME)
    sides: dict[str, dict[str, int]] = {}
    for name, entry in sorted(header.items()):
        match = pattern.fullmatch(name)
        # Of a whole model every tensor is taken, of an adapter its own and those of the parts that are stored as they are.
        known = match is not None or path.name == MODEL or bool(saved & set(name.split(".")))
        low = pattern is _NAME and match is not None
        dimensions = None if not low else 1 if name.endswith("magnitude_vector") else 2
        fault = _shape_fault(name, entry, dimensions) if known else f"{name!r} is no tensor of an adapter of type {kind}"
        if fault is None and low and match is not None and match["side"]:
            sides.setdefault(match["layer"], {})[match["side"]] = entry["shape"][0 if match["side"] == "A" else 1]
        if fault is None:
            fault = _number_fault(path, start, name, entry)
        faults += [fault] if fault else []
    return faults + (list(_pair_faults(sides, config)) if pattern is _NAME else [])


def _shape_fault(name: str, entry: Mapping[str, Any], dimensions: int | None) -> str | None:
    shape, dtype = entry.get("shape"), entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _WORDS:
        return f"{name!r} has the number format {dtype!r}; adapters have {', '.join(_WORDS)}"
    if not isinstance(shape, list) or dimensions not in (None, len(shape)) or not all(isinstance(item, int) and item > 0 for item in shape):
        return f"{name!r} has the shape {shape}"
    width = int(_WORDS[dtype][0][-1])
    first, last = entry["data_offsets"]
    return None if last - first == math.prod(shape) * width else f"{name!r} has {last - first} bytes for the shape {shape}"


def _number_fault(path: Path, start: int, name: str, entry: Mapping[str, Any]) -> str | None:
    import numpy as np

    words, mask = _WORDS[entry["dtype"]]
    count = math.prod(entry["shape"])
    numbers = np.memmap(path, dtype=words, mode="r", offset=start + entry["data_offsets"][0], shape=(count,))
    bad = int(((numbers & mask) == mask).sum())
    return f"{name!r} holds {bad} values that are not finite" if bad else None


def _pair_faults(sides: Mapping[str, Mapping[str, int]], config: Mapping[str, Any] | None) -> Iterator[str]:
    rank = None if config is None else config.get("r")
    table = None if config is None else config.get("rank_pattern")
    others: Mapping[str, Any] = table if isinstance(table, dict) else {}
    targets = set(config.get("target_modules") or ()) if config is not None and isinstance(config.get("target_modules"), list) else None
    for layer, found in sorted(sides.items()):
        if set(found) != {"A", "B"}:
            yield f"{layer!r} has only its {' and '.join(sorted(found))} side"
        elif isinstance(rank, int) and set(found.values()) != {others.get(layer, rank)}:
            yield f"{layer!r} has rank {found['A']} and {found['B']}, {CONFIG} says {others.get(layer, rank)}"
        if targets is not None and targets.isdisjoint(_endings(layer)):
            yield f"{layer!r} is not among the target modules of {CONFIG}"
    if targets is not None and (missing := targets - {ending for layer in sides for ending in _endings(layer)}):
        yield f"{CONFIG} names target modules without weights: {', '.join(sorted(map(str, missing)))}"


def _endings(layer: str) -> list[str]:
    """Return the ways in which PEFT lets a layer be named: q_proj, self_attn.q_proj, ..."""
    parts = layer.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]
