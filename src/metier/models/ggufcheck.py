"""A written GGUF file read back by transformers' own reader, which shares no code with the writer: shape, tokenizer, weights."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from metier.errors import ModelError
from metier.models.parity import Golden, first_difference

__all__ = ["prompt_faults", "read_model", "read_tokenizer", "shape_faults", "token_faults"]

_SHAPE = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "vocab_size",
    "tie_word_embeddings",
    "sliding_window",
)


def shape_faults(path: Path, folder: Path) -> Iterator[str]:
    """Yield where the file's own account of the model differs from the configuration in `folder`."""
    expected = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    found = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    for name in _SHAPE:
        ours, theirs = getattr(expected, name, None), getattr(found, name, None)
        if ours != theirs and not (name == "sliding_window" and expected.model_type != "gemma3_text"):
            yield f"{name} is {theirs!r}, not {ours!r}"
    if abs(found.rms_norm_eps - expected.rms_norm_eps) > 1e-3 * expected.rms_norm_eps:
        yield f"rms_norm_eps is {found.rms_norm_eps!r}, not {expected.rms_norm_eps!r}"
    ours, theirs = (_theta(item) for item in (expected, found))
    if ours != theirs:
        yield f"the base of the rotary embedding is {theirs!r}, not {ours!r}"


def _theta(config: Any) -> float:
    rope = config.rope_parameters
    return float(rope.get("full_attention", rope)["rope_theta"])


def read_tokenizer(path: Path) -> Any:
    """Return the tokenizer that the file describes. Raises ModelError if it describes none."""
    try:
        return transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} was written, and its tokenizer cannot be read back ({error})\n    -> export with --format merged") from None


def token_faults(tokenizer: Any, texts: Sequence[str], rows: Sequence[Golden], template: str) -> Iterator[str]:
    """Yield what a runtime would feed the model otherwise than training did: another template, other tokens, the first token twice."""
    if tokenizer.chat_template != template:
        yield "its chat template is not the one of training"
    # As a server tokenises a rendered conversation: with whatever the file says is to be added to it.
    yield from prompt_faults([tokenizer(text)["input_ids"] for text in texts], rows, tokenizer)


def prompt_faults(found: Sequence[Sequence[int]], rows: Sequence[Golden], tokenizer: Any) -> Iterator[str]:
    """Yield where the tokens that a runtime makes of rendered conversations are not those of training; `tokenizer` names the first token."""
    for number, (tokens, row) in enumerate(zip(found, rows, strict=True)):
        if tuple(tokens) == row.prompt:
            continue
        if tuple(tokens[1:]) == row.prompt and tokens[0] == tokenizer.bos_token_id:
            yield f"conversation {number} begins with {tokenizer.bos_token!r} where training had none more: the first token would stand there twice"
        else:
            place = first_difference(tokens, row.prompt)
            place = min(len(tokens), len(row.prompt)) if place is None else place
            yield f"conversation {number} is cut into other tokens from place {place} on ({len(tokens)} tokens, not {len(row.prompt)})"


def read_model(path: Path, folder: Path) -> torch.nn.Module:
    """Return the model of the file in fp32 with the configuration in `folder`: what the file says of its shape is compared apart."""
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    # A stream, not None: the progress bar of the reader writes to it without asking.
    with contextlib.redirect_stderr(io.StringIO()):
        model: torch.nn.Module = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            config=config,
            dtype=torch.float32,
            quantization_config=transformers.GgufConfig(dequantize=True),
            local_files_only=True,
        )
    return model.eval()
