"""GGUF files: every architecture and type is read back by another reader with the same shape, tokens, logits and greedy choices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from metier.errors import ModelError
from metier.models import Base, LocalModel
from metier.models.gguf import Plan, plan_gguf, write_gguf
from metier.models.ggufcheck import read_model, read_tokenizer, shape_faults, token_faults
from metier.models.ggufvocab import vocabulary_of
from metier.models.parity import Golden, Limits, compare, golden, own_logits, plain_logits
from models.exported import LLAMA3, PROMPTS, QWEN, byte_level, model_folder, sentencepiece

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: byte_level(LLAMA3, first=True, ignore_merges=True),
    "qwen2": lambda: byte_level(QWEN),
    "qwen3": lambda: byte_level(QWEN),
    "gemma3": lambda: sentencepiece(first=True),
}
LIMITS = {"f32": Limits(1e-6, 1e-4, 1e-4), "f16": Limits(1e-4, 0.05, 0.02), "bf16": Limits(1e-3, 0.3, 0.1), "q8_0": Limits(5e-3, 1.5, 0.3)}


@pytest.fixture(scope="module", params=sorted(TOKENIZERS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Base, LocalModel, list[Golden], list[torch.Tensor]]:
    """A small model of each architecture with its answers and logits."""
    base = model_folder(tmp_path_factory.mktemp(request.param) / "model", request.param, TOKENIZERS[request.param]())
    ours = LocalModel.open(base, dtype=torch.float32)
    rows = golden(ours, PROMPTS, answer_tokens=12)
    return base, ours, rows, own_logits(ours, rows)


def plan(base: Base, ours: LocalModel, kind: Any = None, **about: str) -> Plan:
    return plan_gguf(base.folder, ours.chat.tokenizer, type=kind, stop=ours.chat.tokenizer.eos_token_id, about=about)


def texts(ours: LocalModel, rows: list[Golden]) -> list[str]:
    return [ours.chat.render(row.messages, answering=True) for row in rows]


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_logits_and_greedy_choices_survive_the_file(made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], kind: str, tmp_path: Path) -> None:
    base, ours, rows, logits = made
    path = tmp_path / "model.gguf"
    write_gguf(plan(base, ours, kind), path)
    assert list(shape_faults(path, base.folder)) == []
    parity = compare(logits, plain_logits(read_model(path, base.folder), rows))
    assert parity.faults(LIMITS[kind]) == []
    assert parity.same == 1.0 or kind not in ("f32", "f16")
    found = {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert found == {"F32", kind.upper()}, "matrices in the type asked for, vectors in fp32"


def test_tokenizer_and_template_of_the_file_give_the_tokens_of_training(
    made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], tmp_path: Path
) -> None:
    base, ours, rows, _ = made
    path = tmp_path / "model.gguf"
    write_gguf(plan(base, ours), path)
    tokenizer = read_tokenizer(path)
    assert list(token_faults(tokenizer, texts(ours, rows), rows, ours.chat.tokenizer.chat_template)) == []
    messages = [{"role": message.role, "content": message.content} for message in PROMPTS[0]]
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert rendered == ours.chat.prompt(PROMPTS[0])
    for sample in ("高血压 患者，血糖 7.8 mmol/L", "Two  spaces\n\n\tand 3,141 <b>tags</b>, it's"):
        assert tokenizer(sample)["input_ids"] == ours.chat.tokenizer(sample, add_special_tokens=False)["input_ids"]


def test_the_first_token_stands_once(made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], tmp_path: Path) -> None:
    """A runtime that adds the beginning-of-text token to a template that writes it already would show the model two of them."""
    base, ours, rows, _ = made
    fields = plan(base, ours).metadata
    assert fields["tokenizer.ggml.add_bos_token"] is False
    text = texts(ours, rows)[0]
    assert text.startswith("<bos>"), "the template writes it"
    path = tmp_path / "model.gguf"
    write_gguf(plan(base, ours), path)
    assert read_tokenizer(path)(text)["input_ids"].count(ours.chat.tokenizer.bos_token_id) == 1

    class Doubling:
        """The tokenizer of a file that says that the token is to be added."""

        chat_template = ours.chat.tokenizer.chat_template
        bos_token, bos_token_id = ours.chat.tokenizer.bos_token, ours.chat.tokenizer.bos_token_id

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [self.bos_token_id, *ours.chat.tokenizer(text, add_special_tokens=False)["input_ids"]]}

    faults = list(token_faults(Doubling(), [text], rows[:1], ours.chat.tokenizer.chat_template))
    assert len(faults) == 1
    assert "the first token would stand there twice" in faults[0]


@pytest.mark.parametrize("spoilt", ["blk.0.attn_q.weight", "blk.1.attn_norm.weight", "blk.1.ffn_down.weight", "output_norm.weight"])
def test_one_wrong_tensor_is_seen(made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], spoilt: str, tmp_path: Path) -> None:
    base, ours, rows, logits = made
    path = tmp_path / "model.gguf"
    write_gguf(plan(base, ours), path)
    tensor = next(item for item in gguf.GGUFReader(path, mode="r+").tensors if item.name == spoilt)
    tensor.data[:] = np.roll(tensor.data, 1, axis=0)
    tensor.data.flush()
    assert compare(logits, plain_logits(read_model(path, base.folder), rows)).faults(LIMITS["f32"])


def test_wrong_metadata_is_seen(made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], tmp_path: Path) -> None:
    base, ours, rows, _ = made
    good = plan(base, ours)
    wrong = {"attention.head_count_kv": 4, "rope.freq_base": 10_000.0, "block_count": 1, "attention.layer_norm_rms_epsilon": 1e-5}
    changed = {f"{good.architecture}.{key}": value for key, value in wrong.items()}
    bad = Plan(good.architecture, good.type, {**good.metadata, **changed}, good.vocabulary, good.tensors, good.heads, good.rotary)
    path = tmp_path / "model.gguf"
    write_gguf(bad, path)
    assert len(list(shape_faults(path, base.folder))) == len(wrong)
    other = Plan(good.architecture, good.type, {**good.metadata, "tokenizer.chat_template": "{{ 'x' }}"}, good.vocabulary, good.tensors, good.heads, None)
    write_gguf(other, tmp_path / "other.gguf")
    (fault,) = token_faults(read_tokenizer(tmp_path / "other.gguf"), texts(ours, rows), rows, ours.chat.tokenizer.chat_template)
    assert "its chat template is not the one of training" in fault


def test_the_same_model_gives_the_same_bytes_and_says_whose_it_is(made: tuple[Base, LocalModel, list[Golden], list[torch.Tensor]], tmp_path: Path) -> None:
    base, ours, _, _ = made
    for name in ("one.gguf", "two.gguf"):
        write_gguf(plan(base, ours, **{"metier.adapter": "ab" * 32}), tmp_path / name)
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
    fields = gguf.GGUFReader(tmp_path / "one.gguf").fields
    assert fields["metier.adapter"].contents() == "ab" * 32
    assert fields["general.file_type"].contents() == 0
    assert fields["tokenizer.ggml.eos_token_id"].contents() == ours.chat.tokenizer.eos_token_id


def test_llama_3_s_rotary_scaling_is_written_as_factors(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    base = model_folder(tmp_path / "model", "llama", byte_level(LLAMA3, ignore_merges=True), rope_parameters=rope)
    ours = LocalModel.open(base, dtype=torch.float32)
    write_gguf(plan(base, ours), tmp_path / "model.gguf")
    tensors = {item.name: item.data for item in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    factors = tensors["rope_freqs.weight"]
    expected = ours.model.model.rotary_emb.inv_freq.numpy()
    plain = 1.0 / 500_000.0 ** (np.arange(0, 16, 2) / 16)
    assert np.allclose(plain / factors, expected, rtol=1e-5)
    assert len(set(factors.tolist())) > 2, "between the two ends is a smooth part"


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "the rotary scaling 'yarn'"),
    ("llama", {"hidden_act": "gelu"}, "the activation 'gelu'"),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "a sliding window"),
    ("gemma3", {"num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}, "another pattern of windows"),
    ("gemma3", {"query_pre_attn_scalar": 64}, "attention scaled by 64 where heads have 32 numbers"),
    ("gemma3", {"final_logit_softcapping": 30.0}, "capped logits"),
]


@pytest.mark.parametrize(("kind", "changed", "message"), REFUSED, ids=[item[2] for item in REFUSED])
def test_what_llama_cpp_would_compute_otherwise_is_refused_before_writing(kind: str, changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    base = model_folder(tmp_path / "model", kind, TOKENIZERS[kind](), **changed)
    tokenizer = TOKENIZERS[kind]()
    with pytest.raises(ModelError, match=f"(?s){message}.*--format merged"):
        plan_gguf(base.folder, tokenizer, type=None, stop=1, about={})


def test_an_architecture_that_is_not_known_names_those_that_are(tmp_path: Path) -> None:
    base = model_folder(tmp_path / "model", "llama", byte_level(None))
    config = (base.folder / "config.json").read_text().replace("LlamaForCausalLM", "FalconForCausalLM")
    (base.folder / "config.json").write_text(config)
    with pytest.raises(ModelError, match=r"FalconForCausalLM cannot be written as GGUF: the architectures are LlamaForCausalLM, Qwen2"):
        plan_gguf(base.folder, byte_level(None), type=None, stop=1, about={})


def test_a_vocabulary_has_kinds_blanks_and_padding() -> None:
    tokenizer = sentencepiece()
    tokenizer.add_tokens(["\u2581\u2581"])
    found = vocabulary_of(tokenizer, len(tokenizer) + 2)
    kinds = dict(zip(found.tokens, found.types, strict=True))
    assert (kinds["<bos>"], kinds["<b>"], kinds["<0x0A>"], kinds["\u2581a"], kinds[f"[PAD{len(tokenizer)}]"]) == (3, 4, 6, 1, 5)
    assert kinds["  "] == 4, "in a token of one's own, blanks are blanks"
    assert found.scores[found.tokens.index("\u2581a")] > found.scores[found.tokens.index("<b>")]
    with pytest.raises(ModelError, match="the tokenizer has"):
        vocabulary_of(tokenizer, 10)


def _changed(tokenizer: Any, **parts: Any) -> Any:
    for name, part in parts.items():
        setattr(tokenizer.backend_tokenizer, name, part)
    return tokenizer


def test_tokenizers_that_runtimes_read_differently_are_refused_with_the_reason() -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    unigram = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)), eos_token="<unk>")
    incomplete = Tokenizer(
        models.BPE(vocab={"<unk>": 0, "a": 1, "b": 2, "ab": 3, "aba": 4, "ba": 5}, merges=[("a", "b"), ("ab", "a"), ("b", "a")], byte_fallback=True)
    )
    incomplete.normalizer = normalizers.Replace(" ", "\u2581")
    cases = [
        (unigram, "a Unigram tokenizer"),
        (_changed(byte_level(None), normalizer=normalizers.Lowercase()), "normalises text by Lowercase"),
        (_changed(byte_level(None), pre_tokenizer=pre_tokenizers.Whitespace()), "cuts text into words"),
        (byte_level(LLAMA3), "does not take merges first|takes merges first"),
        (_changed(sentencepiece(), normalizer=normalizers.NFKC()), "the step NFKC"),
        (PreTrainedTokenizerFast(tokenizer_object=incomplete, eos_token="<unk>"), "some ways to make a token are missing"),
    ]
    for tokenizer, message in cases:
        with pytest.raises(ModelError, match=message):
            vocabulary_of(tokenizer, 2000)
