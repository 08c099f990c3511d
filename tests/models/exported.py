"""Small models of the architectures that are exported, with tokenizers of their kinds, an adapter that changes answers, and prompts."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from metier.models import Base, load_weights, resolve
from metier.models.ggufvocab import _SPLITS
from metier.models.lora import ALL_LINEAR, adapter_state, attach
from metier.models.lorafile import save_adapter
from metier.records import Message

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
PROMPTS = [
    (Message("user", "高血压患者头晕怎么办？"),),
    (Message("system", "Answer briefly."), Message("user", "Where does this go, and  why?\n\n1,234 items")),
    (Message("user", "你好"), Message("assistant", "您好。", learn=True), Message("user", "What is 一二三 in English? It's <b>bold</b>")),
]
QWEN = next(pattern for pattern, name in _SPLITS.items() if name == "qwen2")
LLAMA3 = next(pattern for pattern, name in _SPLITS.items() if name == "llama-bpe")


def _corpus() -> list[str]:
    return resources.files("metier").joinpath("data/tiny_corpus.txt").read_text(encoding="utf-8").splitlines()


def byte_level(split: str | None, *, first: bool = False, ignore_merges: bool = False) -> Any:
    """Return a byte-level tokenizer; `split` is the expression that cuts text, `first` whether it puts <bos> before a text."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = cut if split is None else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), cut])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _finished(tokenizer, first=first)


def sentencepiece(*, first: bool = True) -> Any:
    """Return a tokenizer as Gemma's: characters and byte fallback, blanks as a sign, merges that are those of a vocabulary with scores."""
    words = sorted({word for line in _corpus() for word in line.replace(" ", " \u2581").split(" ")})
    pieces = sorted({word[start : start + size] for word in words for size in (2, 3, 4) for start in range(max(0, len(word) - size + 1))})
    counted = sorted(pieces, key=lambda piece: (-sum(word.count(piece) for word in words), piece))[:300]
    alphabet = sorted({char for line in _corpus() for char in line.replace(" ", "\u2581")})
    listed = list(dict.fromkeys([*SPECIAL, "<b>", *(f"<0x{byte:02X}>" for byte in range(256)), *counted, *alphabet]))
    vocabulary = {text: index for index, text in enumerate(listed)}
    merges = [(piece[:cut], piece[cut:]) for piece in counted for cut in range(1, len(piece)) if piece[:cut] in vocabulary and piece[cut:] in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(["<b>"])
    return _finished(tokenizer, first=first)


def _finished(tokenizer: Tokenizer, *, first: bool) -> Any:
    if first:
        tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.token_to_id("<bos>"))])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


_SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}


def configuration(kind: str, tokenizer: Any, **changed: Any) -> Any:
    """Return the configuration of a small model of one of the architectures, all of it other than the defaults of its class."""
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    # Three more embeddings than tokens, as published models have.
    common = {**_SIZES, **ids, "vocab_size": len(tokenizer) + 3, "num_hidden_layers": 2, "rms_norm_eps": 3e-6, "initializer_range": 0.15}
    if kind == "gemma3":
        rope = {"full_attention": {"rope_type": "default", "rope_theta": 500_000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0}}
        common |= {"num_hidden_layers": 6, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8, "rope_parameters": rope}
        return transformers.Gemma3TextConfig(**(common | changed))
    common |= {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}, "tie_word_embeddings": kind != "qwen2"}
    if kind == "qwen3":
        common |= {"head_dim": 32}
    return {"llama": transformers.LlamaConfig, "qwen2": transformers.Qwen2Config, "qwen3": transformers.Qwen3Config}[kind](**(common | changed))


def model_folder(folder: Path, kind: str, tokenizer: Any, *, dtype: torch.dtype = torch.float32, **changed: Any) -> Base:
    """Write a small random model with all its norms and biases other than their start, and return it as a base."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(configuration(kind, tokenizer, **changed))
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                torch.nn.init.normal_(parameter, 0.0 if kind == "gemma3" or name.endswith("bias") else 1.0, 0.2)
    model.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n", encoding="utf-8")
    return resolve(str(folder.resolve()), root=folder)


def adapter_folder(folder: Path, base: Base, *, rank: int = 4, strength: float = 0.2, targets: Any = ALL_LINEAR) -> Path:
    """Write an adapter of the base that changes its answers, and return its folder."""
    model = load_weights(base, torch.float32)
    attach(model, rank=rank, alpha=2 * rank, dropout=0.0, targets=targets, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        for name, tensor in adapter_state(model).items():
            if name.endswith("lora_B.weight"):
                tensor.normal_(0, strength)
    save_adapter(model, folder, base=base.name, rank=rank, alpha=2 * rank, dropout=0.0)
    return folder
