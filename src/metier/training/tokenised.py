"""Examples that were tokenised before are found again: by the records, the tokenizer, the options and the code that made them.

`tokens/KEY` below the store holds `examples.arrow` (see `metier.training.examples`), `drops.parquet` and `facts.json`, which names the first
one's digest; it is written aside and renamed into place. What was used longest ago is removed: a training tokenises again what it lacks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import tokenizers
import transformers

from metier.digest import canonical_json, digest_file, digest_of
from metier.errors import StoreError
from metier.kept import KEPT, aside
from metier.models import Base
from metier.shards import read_drops, write_drops
from metier.store import remove_folder, write_atomically
from metier.training.examples import Examples, read_examples

__all__ = ["FOLDER", "tokenised"]

FOLDER = "tokens"
"""Where they are kept, below the store."""


_EXAMPLES, _DROPS, _FACTS = "examples.arrow", "drops.parquet", "facts.json"
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.jinja")
_ROOMS = Path(__file__).parent.parent
_CODE = {"training": ("batches", "examples", "labelled"), "models": ("answers", "chat", "labeller", "tags", "words")}
"""Modules that decide which tokens a record becomes, by room."""


def tokenised(kept: Path | None, base: Base, about: Mapping[str, Any], make: Callable[[Path | None], Examples]) -> Examples:
    """Return the examples that `make` makes in a file below `kept`, or those that it made before for the same `about` with the same tokenizer.

    `about` says all that the examples depend on beside the tokenizer and the code; it must have a JSON form. `kept` None: they are made in memory.
    """
    if kept is None:
        return make(None)
    key = digest_of({"about": dict(about), "tokenizer": _tokenizer(base), "code": _code()})[:32]
    folder = kept / key
    found = _read(folder)
    if found is not None:
        os.utime(folder)
        return found
    with aside(kept, key, kept=KEPT) as writing:
        made = make(writing / _EXAMPLES)
        write_drops(writing / _DROPS, made.drops)
        # Hashed while it was written: what is read here is what has just been handed to the disk.
        facts = {"sha256": made.sha256, "widened": made.widened, "broken_up": made.broken_up}
        write_atomically(writing / _FACTS, canonical_json(facts))
        try:
            writing.rename(folder)
        except OSError:
            # Another process has made the same meanwhile and may be reading it; only what is not whole is put out of the way.
            if (theirs := _read(folder)) is not None:
                return theirs
            remove_folder(folder)
            writing.rename(folder)
    return _opened(folder, facts)


def _read(folder: Path) -> Examples | None:
    """Return what a folder holds, or None where there is nothing, or nothing whole."""
    try:
        facts = json.loads((folder / _FACTS).read_bytes())
        return _opened(folder, facts) if digest_file(folder / _EXAMPLES) == facts["sha256"] else None
    except (OSError, ValueError, KeyError, StoreError, pa.ArrowInvalid):
        return None


def _opened(folder: Path, facts: Mapping[str, Any]) -> Examples:
    return read_examples(folder / _EXAMPLES, read_drops(folder / _DROPS), widened=facts["widened"], broken_up=facts["broken_up"])


@cache
def _tokenizer(base: Base) -> dict[str, str]:
    """Return the digests of the files that make a tokenizer, and the versions of the libraries that read them."""
    files = sorted({path for pattern in _TOKENIZER for path in base.folder.glob(pattern) if path.is_file()})
    return {path.name: digest_file(path) for path in files} | {"tokenizers": tokenizers.__version__, "transformers": transformers.__version__}


@cache
def _code() -> dict[str, str]:
    return {f"{room}/{name}": digest_file(_ROOMS / room / f"{name}.py") for room, names in _CODE.items() for name in names}
