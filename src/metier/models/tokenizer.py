"""Reading a base model's tokenizer, quickly: its vocabulary goes from the file into Rust and never through Python.

A tokenizer's class in transformers reads `tokenizer.json` into Python's dictionaries and builds the tokenizer anew from them: for a vocabulary of 262,144
tokens with its merges that takes seconds, and memory that stays with the process in pieces when the dictionaries are gone. Here that class is shown the
same tokenizer with almost no vocabulary. If it leaves the kind of vocabulary and the added tokens as they are, which is the rule, then what it made of all
else is put around the vocabulary that `tokenizers` read. If it does not, it reads everything itself.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from tokenizers.models import BPE

from metier.errors import ModelError
from metier.models.base import Base

__all__ = ["forget_tokenizers", "load_tokenizer"]

_VOCABULARY = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "merges.txt")
_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_BESIDE = (".json", ".jinja", ".txt")
_TEMPLATES = "additional_chat_templates"


def load_tokenizer(base: Base) -> Any:
    """Return the base model's tokenizer. Raises ModelError if it cannot be loaded.

    Its vocabulary is read once, which takes a while where it is large; tokens must not be added to it. What else is set on it is the caller's own.
    """
    try:
        return copy(_tokenizer(base.folder, base.digest))
    except Exception as error:  # noqa: BLE001 - what tokenizers raises has no type of its own
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the tokenizer of {base.name} cannot be loaded: {said}") from None


def forget_tokenizers() -> None:
    """Let go of tokenizers that were read, which are large where their vocabulary is. Who still uses one keeps it."""
    _tokenizer.cache_clear()


@lru_cache(maxsize=2)
def _tokenizer(folder: Path, digest: str) -> Any:
    return _beside_its_vocabulary(folder) or _as_its_class_reads_it(folder)


def _as_its_class_reads_it(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _beside_its_vocabulary(folder: Path) -> Any | None:
    """Return the tokenizer, its vocabulary read by `tokenizers`; None if its class would make something else of the file."""
    whole = _read(folder / "tokenizer.json")
    if whole is None or not isinstance(whole.model, BPE):
        return None
    bare = _bare(whole)
    try:
        tokenizer = _made_of(bare, folder)
    except OSError:  # No room for the copy; and what is missing is missed once more, by the class.
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # What mends a pre-tokenizer by hand looks at how large the vocabulary is.
    if backend is None or _kept(backend) != _kept(bare) or tokenizer.init_kwargs.get("fix_mistral_regex"):
        return None
    _take_parts(whole, backend)
    whole.encode_special_tokens = backend.encode_special_tokens
    tokenizer._tokenizer = whole
    tokenizer.name_or_path = tokenizer.init_kwargs["name_or_path"] = str(folder)
    return tokenizer


def _made_of(bare: Tokenizer, folder: Path) -> Any:
    """Return what a tokenizer's class makes of another vocabulary with the same settings."""
    with tempfile.TemporaryDirectory(prefix="metier-tokenizer-") as place:
        for path in folder.iterdir():
            if path.is_file() and path.suffix in _BESIDE and path.name not in _VOCABULARY:
                shutil.copyfile(path, Path(place) / path.name)
        if (folder / _TEMPLATES).is_dir():
            shutil.copytree(folder / _TEMPLATES, Path(place) / _TEMPLATES)
        bare.save(str(Path(place) / "tokenizer.json"))
        return _as_its_class_reads_it(Path(place))


def _read(path: Path) -> Tokenizer | None:
    if not path.is_file():
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # noqa: BLE001 - as above; transformers names the fault
        return None


def _kept(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what a tokenizer's class has to leave as it is."""
    return {name: value for name, value in json.loads(tokenizer.to_str()).items() if name not in _PARTS}


def _take_parts(into: Tokenizer, source: Tokenizer) -> None:
    for part in _PARTS:
        setattr(into, part, getattr(source, part))


def _bare(whole: Tokenizer) -> Tokenizer:
    """Return the same tokenizer with nothing in its vocabulary but added tokens and the unknown one, under their own numbers."""
    model, added = whole.model, whole.get_added_tokens_decoder()
    names = [token.content for token in added.values()] + ([model.unk_token] if model.unk_token else [])
    numbers = {name: number for name in names if (number := whole.token_to_id(name)) is not None}
    settings = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges")
    bare = Tokenizer(BPE(numbers, [], **{name: value for name in settings if (value := getattr(model, name)) is not None}))
    _take_parts(bare, whole)
    if whole.truncation:
        bare.enable_truncation(**whole.truncation)
    if whole.padding:
        bare.enable_padding(**whole.padding)
    bare.add_tokens([token for _, token in sorted(added.items())])
    return bare
