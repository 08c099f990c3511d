r"""A fast tokenizer as GGUF's metadata describes one: tokens, their kinds, scores or merges, and how text is cut before.

Two families are known. Byte-level BPE (`gpt2`: Llama 3, Qwen, this project's tiny model) keeps its merges and the name of its regular
expression. BPE with byte fallback over "\u2581" for blanks (`llama`: Gemma, Llama 2) is SentencePiece's in another writing: runtimes
merge by the score of the result, so the merges are turned into scores, and only if they say the same.

The format is that of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; token types are llama.cpp's `llama_token_type`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from metier.errors import ModelError

__all__ = ["Vocabulary", "vocabulary_of"]

_NORMAL, _CONTROL, _USER, _UNUSED, _BYTE = 1, 3, 4, 5, 6
_BLANK = "\u2581"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")

# How llama.cpp names the regular expressions that cut text for byte-level BPE (its llama-vocab.cpp).
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS: Mapping[str, str] = {_WORDS % "": "qwen2", _WORDS % "{1,3}": "llama-bpe"}
_REMEDY = "export with --format merged, which any runtime that reads transformers folders loads"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What GGUF says of a tokenizer. `types` are llama.cpp's numbers; `merges` belong to `gpt2`, `scores` to `llama`."""

    model: Literal["gpt2", "llama"]
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    space_prefix: bool = False
    notes: tuple[str, ...] = ()


def vocabulary_of(tokenizer: Any, size: int) -> Vocabulary:
    """Return a tokenizer's vocabulary, filled up to the `size` of the model's embeddings.

    Raises ModelError, saying which part, for a tokenizer that runtimes of this format would read differently.
    """
    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    if model.get("type") != "BPE":
        raise _refused(f"a {model.get('type')} tokenizer")
    for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(key):
            raise _refused(f"a tokenizer with {key}")
    merges = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    if model.get("byte_fallback"):
        return _sentencepiece(described, merges, size)
    return _byte_level(described, merges, size)


def _refused(what: str) -> ModelError:
    return ModelError(f"{what} has no form in GGUF that runtimes read alike\n    -> {_REMEDY}")


def _tokens(described: Mapping[str, Any], size: int, *, blanks: bool) -> tuple[list[str], list[int]]:
    """Return tokens and types by id. `blanks`: in tokens of the user's own, a blank is written as a blank and not as its sign."""
    texts: dict[int, str] = {index: text for text, index in described["model"]["vocab"].items()}
    types = {index: _BYTE if blanks and _BYTE_TOKEN.fullmatch(text) else _NORMAL for index, text in texts.items()}
    for entry in described["added_tokens"]:
        index, text = entry["id"], entry["content"]
        types[index] = _CONTROL if entry["special"] else _USER
        texts[index] = text.replace(_BLANK, " ") if blanks and not entry["special"] else text
    if texts and max(texts) >= size:
        raise ModelError(f"the tokenizer has {max(texts) + 1} tokens, the model {size}\n    -> use the tokenizer that the base model came with")
    return [texts.get(index, f"[PAD{index}]") for index in range(size)], [types.get(index, _UNUSED) for index in range(size)]


def _byte_level(described: Mapping[str, Any], merges: Sequence[tuple[str, ...]], size: int) -> Vocabulary:
    pre = _pre_tokenizer(described["pre_tokenizer"])
    if bool(described["model"].get("ignore_merges")) != (pre == "llama-bpe"):
        raise _refused(f"a tokenizer that cuts text as {pre!r} and {'takes' if pre == 'llama-bpe' else 'does not take'} merges first")
    notes: tuple[str, ...] = ()
    normalizer = described["normalizer"]
    if normalizer is not None:
        if normalizer.get("type") != "NFC":
            raise _refused(f"a byte-level tokenizer that normalises text by {normalizer.get('type')}")
        notes = ("the base's tokenizer brings text into the form NFC first, llama.cpp does not: give it text in that form",)
    tokens, types = _tokens(described, size, blanks=False)
    return Vocabulary("gpt2", pre, tuple(tokens), tuple(types), merges=tuple(" ".join(pair) for pair in merges), notes=notes)


def _pre_tokenizer(described: Mapping[str, Any] | None) -> str:
    parts = [] if described is None else described.get("pretokenizers", [described])
    kinds = [part["type"] for part in parts]
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True) and not parts[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True) and parts[0]["behavior"] == "Isolated":
        found = _SPLITS.get(parts[0]["pattern"].get("Regex", ""))
        if found is not None:
            return found
    raise _refused("the way in which this tokenizer cuts text into words")


def _sentencepiece(described: Mapping[str, Any], merges: Sequence[tuple[str, ...]], size: int) -> Vocabulary:
    prefix = _space_prefix(described)
    vocabulary: dict[str, int] = described["model"]["vocab"]
    added = {entry["content"] for entry in described["added_tokens"]}
    order = _order(merges, vocabulary, added)
    tokens, types = _tokens(described, size, blanks=True)
    lowest = -float(len(order) + 1)
    # A token of the vocabulary is looked up as it stands there, also where it is written with blanks here.
    spelt = {index: text for text, index in vocabulary.items()}
    scores = tuple(-float(order[spelt[index]]) if spelt.get(index) in order else lowest for index in range(size))
    return Vocabulary("llama", "default", tuple(tokens), tuple(types), scores=scores, space_prefix=prefix)


def _space_prefix(described: Mapping[str, Any]) -> bool:
    """Return whether a blank is put before a text, from the normaliser or the pre-tokenizer. Raises ModelError for any other form."""
    steps = list(_flat(described["normalizer"], "normalizers")) + list(_flat(described["pre_tokenizer"], "pretokenizers"))
    prefix = False
    replaced = False
    for step in steps:
        kind = step["type"]
        if kind == "Prepend" and step["prepend"] == _BLANK:
            prefix = True
        elif kind == "Replace" and step["pattern"].get("String") == " " and step["content"] == _BLANK:
            replaced = True
        elif kind == "Metaspace" and step["replacement"] == _BLANK and not step.get("split", True):
            prefix, replaced = step.get("prepend_scheme", "always") != "never", True
        elif not (kind == "Split" and step["pattern"].get("String") == " " and step["behavior"] == "MergedWithPrevious"):
            raise _refused(f"a tokenizer with byte fallback and the step {kind}")
    if not replaced:
        raise _refused("a tokenizer with byte fallback that keeps blanks")
    return prefix


def _flat(described: Mapping[str, Any] | None, key: str) -> Iterator[Mapping[str, Any]]:
    if described is not None:
        yield from described.get(key, [described])


def _order(merges: Sequence[tuple[str, ...]], vocabulary: Mapping[str, int], added: set[str]) -> dict[str, int]:
    """Return the rank of each token that merging makes, from 0.

    SentencePiece joins whichever neighbours make the best token of the vocabulary. Merges say the same only if every way to make a token
    is listed, all ways of one token in a row: otherwise a runtime would cut text differently, and that is refused.
    """
    order: dict[str, int] = {}
    ways: dict[str, int] = {}
    last = ""
    for left, right in merges:
        made = left + right
        if made in order and made != last:
            raise _refused("a tokenizer whose merges are not those of a SentencePiece vocabulary (one token has two ranks)")
        order.setdefault(made, len(order))
        ways[made] = ways.get(made, 0) + 1
        last = made
    for token in vocabulary:
        if len(token) > 1 and token not in added and not _BYTE_TOKEN.fullmatch(token):
            possible = sum(1 for cut in range(1, len(token)) if token[:cut] in vocabulary and token[cut:] in vocabulary)
            if possible != ways.get(token, 0):
                raise _refused("a tokenizer whose merges are not those of a SentencePiece vocabulary (some ways to make a token are missing)")
    return order
