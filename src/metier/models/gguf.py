"""Writing a model folder as one GGUF file for runtimes of the llama.cpp family: Llama, Qwen 2, Qwen 3 and Gemma 3 as text models.

What llama.cpp expects and transformers stores otherwise is converted here, as its own converter does: the rows of Llama's query and key
weights are interleaved for its rotary embedding, Gemma's norms hold 1 + weight, vectors stay in fp32. What a runtime would compute
otherwise (a window pattern, a scale, a rotary scaling that its code for the architecture does not have) is refused before writing.
Source: convert_hf_to_gguf.py and llama-model.cpp of https://github.com/ggml-org/llama.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import transformers
from numpy.typing import NDArray

from metier.errors import MissingExtra, ModelError
from metier.models.ggufvocab import Vocabulary, vocabulary_of
from metier.models.merge import Stored, stored_tensors

__all__ = ["ARCHITECTURES", "STORAGE", "GgufType", "Plan", "plan_gguf", "write_gguf"]

GgufType: TypeAlias = Literal["f32", "f16", "bf16", "q8_0"]

STORAGE: Mapping[str, GgufType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
"""The type of the file that keeps the numbers of a model stored in these formats."""

ARCHITECTURES: Mapping[str, str] = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3", "Gemma3ForCausalLM": "gemma3"}

_FILE_TYPE: Mapping[GgufType, int] = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}  # llama.cpp's llama_ftype
_BLOCK = 32
_WINDOWS = 6
"""Gemma 3: llama.cpp lets every sixth layer see everything, whatever the file says."""
_LOCAL_THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be written: architecture, type, metadata by key, vocabulary, and the tensors by their name in GGUF."""

    architecture: str
    type: GgufType
    metadata: Mapping[str, int | float | str | bool]
    vocabulary: Vocabulary
    tensors: Mapping[str, Stored]
    heads: tuple[int, int]
    rotary: NDArray[np.float32] | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user of the file has to know."""
        coarse = [name for name, item in self.tensors.items() if self.type == "q8_0" and len(item.shape) > 1 and item.shape[-1] % _BLOCK]
        kept = (f"{len(coarse)} tensors have rows that blocks of {_BLOCK} do not fill; they are kept in f16",) if coarse else ()
        return (*self.vocabulary.notes, *kept)


def plan_gguf(folder: Path, tokenizer: Any, *, type: GgufType | None, stop: int, about: Mapping[str, str]) -> Plan:
    """Return the plan for a model folder; `type` None keeps the folder's own format, `stop` is the token that ends an answer.

    `about` becomes metadata as it is. Raises ModelError for what runtimes would not compute as the model does, and MissingExtra without
    the package gguf.
    """
    _package()
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    name = (config.architectures or ["unknown"])[0]
    if name not in ARCHITECTURES:
        raise ModelError(f"{name} cannot be written as GGUF: the architectures are {', '.join(ARCHITECTURES)}\n    -> export with --format merged")
    architecture = ARCHITECTURES[name]
    stored = stored_tensors(folder)
    if config.tie_word_embeddings:
        # Some files hold the head a second time; a runtime would take it, transformers takes the embedding.
        stored.pop("lm_head.weight", None)
    if faults := list(_faults(config, architecture)):
        raise ModelError("a llama.cpp runtime would not compute this model as it is: " + "; ".join(faults) + "\n    -> export with --format merged")
    tensors = _named(stored, architecture, config.num_hidden_layers)
    size = tensors["token_embd.weight"].shape[0]
    kind = type or STORAGE[tensors["token_embd.weight"].dtype]
    metadata = dict(_shape(config, architecture, size)) | dict(_tokens(tokenizer, stop)) | {"general.file_type": _FILE_TYPE[kind]} | dict(about)
    heads = (config.num_attention_heads, config.num_key_value_heads)
    return Plan(architecture, kind, metadata, vocabulary_of(tokenizer, size), tensors, heads, _rotary_factors(config))


def _package() -> Any:
    try:
        import gguf as package
    except ImportError:
        raise MissingExtra("gguf", "bundled", "writing a GGUF file") from None
    return package


def _named(stored: Mapping[str, Stored], architecture: str, layers: int) -> dict[str, Stored]:
    package = _package()
    (kind,) = (key for key, value in package.MODEL_ARCH_NAMES.items() if value == architecture)
    names = package.get_tensor_name_map(kind, layers)
    found: dict[str, Stored] = {}
    for name, place in stored.items():
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise ModelError(f"the tensor {name} has no place in a GGUF file of {architecture}\n    -> export with --format merged")
        found[known] = place
    # Written in the order of the layers, as readers expect them; a stable order also gives the same bytes each time.
    return dict(sorted(found.items(), key=lambda pair: (_layer(pair[0]), pair[0])))


def _layer(name: str) -> int:
    return int(name.split(".")[1]) if name.startswith("blk.") else -1


def _rope(config: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = config.rope_parameters
    inner: Mapping[str, Any] = found.get("full_attention", found)
    return inner


def _faults(config: Any, architecture: str) -> Iterator[str]:
    """Yield what llama.cpp's code for an architecture does not have."""
    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear") and not (kind == "llama3" and architecture == "llama"):
        yield f"the rotary scaling {kind!r}"
    expected = "gelu_pytorch_tanh" if architecture == "gemma3" else "silu"
    activation = getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)
    if activation != expected:
        yield f"the activation {activation!r}"
    if architecture == "gemma3":
        yield from _gemma_faults(config)
    elif getattr(config, "use_sliding_window", False) or "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        yield "a sliding window"
    if getattr(config, "mlp_bias", False):
        yield "biases in the feed-forward layers"


def _gemma_faults(config: Any) -> Iterator[str]:
    pattern = ["full_attention" if (layer + 1) % _WINDOWS == 0 else "sliding_attention" for layer in range(config.num_hidden_layers)]
    if list(config.layer_types) != pattern:
        yield f"another pattern of windows than one full layer in {_WINDOWS}"
    if config.query_pre_attn_scalar != config.head_dim:
        yield f"attention scaled by {config.query_pre_attn_scalar} where heads have {config.head_dim} numbers"
    if config.attn_logit_softcapping is not None or config.final_logit_softcapping is not None:
        yield "capped logits"
    if getattr(config, "use_bidirectional_attention", False):
        yield "attention in both directions"
    local = config.rope_parameters.get("sliding_attention", {})
    if local.get("rope_theta") != _LOCAL_THETA or local.get("rope_type", "default") != "default":
        yield "other rotary embeddings inside windows"


def _shape(config: Any, architecture: str, size: int) -> Iterator[tuple[str, int | float | str | bool]]:
    rope = _rope(config)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values: dict[str, int | float | str | bool] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
        "attention.key_length": head,
        "attention.value_length": head,
        "rope.freq_base": float(rope["rope_theta"]),
        "vocab_size": size,
    }
    if architecture != "gemma3":
        values["rope.dimension_count"] = head
    else:
        values["attention.sliding_window"] = config.sliding_window
    if rope.get("rope_type") == "linear":
        values |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    yield from ((f"{architecture}.{key}", value) for key, value in values.items())


def _rotary_factors(config: Any) -> NDArray[np.float32] | None:
    """Return by what each rotary frequency is divided (Llama 3's scaling: transformers' modeling_rope_utils), None without it."""
    rope = _rope(config)
    if rope.get("rope_type") != "llama3":
        return None
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])
    waves = 2 * math.pi * np.power(float(rope["rope_theta"]), np.arange(0, head, 2, dtype=np.float64) / head)
    smooth = (trained / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    return np.where(waves < trained / high, 1.0, np.where(waves > trained / low, factor, between)).astype(np.float32)


def _tokens(tokenizer: Any, stop: int) -> Iterator[tuple[str, int | str | bool]]:
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (token := getattr(tokenizer, f"{name}_token_id", None)) is not None:
            yield f"tokenizer.ggml.{key}_token_id", int(token)
    if stop != tokenizer.eos_token_id:
        yield "tokenizer.ggml.eot_token_id", stop
    # The template writes what a conversation begins with. A runtime that added the token as well would show the model two of them.
    yield "tokenizer.ggml.add_bos_token", False
    yield "tokenizer.ggml.add_eos_token", False
    yield "tokenizer.chat_template", str(tokenizer.chat_template)


def write_gguf(plan: Plan, path: Path, *, step: Callable[[str], None] = lambda _: None) -> None:
    """Write the file of a plan; `step` is told each tensor. One tensor is in memory at a time. Raises OSError as `open` does."""
    package = _package()
    writer = package.GGUFWriter(path, plan.architecture)
    for key, value in plan.metadata.items():
        _add(writer, key, value)
    writer.add_quantization_version(package.GGML_QUANT_VERSION)
    _add_vocabulary(writer, plan.vocabulary)
    kinds = {name: _kind(plan.type, item.shape) for name, item in plan.tensors.items()}
    if plan.rotary is not None:
        writer.add_tensor_info("rope_freqs.weight", plan.rotary.shape, plan.rotary.dtype, plan.rotary.nbytes)
    for name, item in plan.tensors.items():
        block, size = package.GGML_QUANT_SIZES[package.GGMLQuantizationType[kinds[name]]]
        count = math.prod(item.shape) // block * size
        writer.add_tensor_info(name, item.shape, np.dtype(np.float32), count, raw_dtype=package.GGMLQuantizationType[kinds[name]])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if plan.rotary is not None:
        writer.write_tensor_data(plan.rotary)
    for name, item in plan.tensors.items():
        numbers = _converted(name, item.read().float().numpy(), plan)
        writer.write_tensor_data(package.quants.quantize(np.ascontiguousarray(numbers), package.GGMLQuantizationType[kinds[name]]))
        step(name)
    writer.close()


def _add(writer: Any, key: str, value: int | float | str | bool) -> None:
    kinds: Sequence[tuple[type, str]] = ((bool, "add_bool"), (int, "add_uint32"), (float, "add_float32"), (str, "add_string"))
    getattr(writer, next(method for kind, method in kinds if isinstance(value, kind)))(key, value)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.model == "gpt2":
        writer.add_token_merges(vocabulary.merges)
    else:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)


def _kind(kind: GgufType, shape: Sequence[int]) -> str:
    if len(shape) == 1:
        return "F32"
    return "F16" if kind == "q8_0" and shape[-1] % _BLOCK else kind.upper()


def _converted(name: str, numbers: NDArray[np.float32], plan: Plan) -> NDArray[np.float32]:
    if plan.architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = plan.heads[0] if ".attn_q." in name else plan.heads[1]
        return numbers.reshape(heads, 2, numbers.shape[0] // heads // 2, *numbers.shape[1:]).swapaxes(1, 2).reshape(numbers.shape)
    if plan.architecture == "gemma3" and name.endswith("norm.weight"):
        return numbers + 1
    return numbers
