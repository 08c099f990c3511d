"""A base model's tokenizer beside what is exported, with the chat template of training."""

from __future__ import annotations

import shutil
from pathlib import Path

from metier.store import write_atomically

__all__ = ["copy_model_files", "copy_tokenizer"]

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
_TERMS = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")


def copy_tokenizer(base: Path, folder: Path, template: str | None) -> None:
    """Copy the tokenizer's files and the terms of the base byte for byte, and write the template, if any, which a tokenizer's own file gives way to."""
    for path in sorted(base.iterdir()):
        if path.is_file() and (path.name in _TOKENIZER or path.name.upper().startswith(_TERMS)):
            shutil.copyfile(path, folder / path.name)
    if template is not None:
        write_atomically(folder / "chat_template.jinja", template.encode())


def copy_model_files(base: Path, folder: Path) -> None:
    """Copy the configurations of a model (not its weights) byte for byte."""
    for name in ("config.json", "generation_config.json"):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
