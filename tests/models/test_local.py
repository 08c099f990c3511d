from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from metier.models import Base, GenerationSettings, LocalModel
from metier.models.attention import Packed
from metier.models.lora import adapter_state, attach
from metier.models.lorafile import save_adapter
from metier.models.methods import Shape, attach_method
from metier.records import Message


def ask(text: str) -> list[Message]:
    return [Message("user", text)]


PROMPTS = [ask("你好"), ask("where does this go? " * 6), ask("一二三四五"), ask("x")]


@pytest.fixture
def model(base: Base) -> LocalModel:
    return LocalModel.open(base, dtype=torch.float32)


@pytest.fixture
def reference(base: Base) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32).eval()


def test_greedy_answers_are_those_of_transformers_generate(model: LocalModel, reference: torch.nn.Module) -> None:
    answers = model.generate(PROMPTS, GenerationSettings(max_new_tokens=12))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([model.chat.prompt(prompt)])
        expected = reference.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=sorted(model.chat.stop_tokens), pad_token_id=0)
        text = model.chat.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True).strip()
        assert answer.text == text
        assert answer.tokens == expected.shape[1] - ids.shape[1]


def test_a_sliding_window_is_kept_in_packed_rows_and_while_decoding(tmp_path: Path, base: Base) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=768, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, sliding_window=8
    )
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(tmp_path)
    reference = MistralForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    windowed = Base("windowed", tmp_path, "", "")
    tokenizer_files = ("tokenizer.json", "tokenizer_config.json")
    for name in tokenizer_files:
        (tmp_path / name).write_bytes((base.folder / name).read_bytes())
    model = LocalModel.open(windowed, dtype=torch.float32)
    answers = model.generate(PROMPTS, GenerationSettings(max_new_tokens=20))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = torch.tensor([model.chat.prompt(prompt)])
        expected = reference.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=sorted(model.chat.stop_tokens), pad_token_id=0)
        assert answer.text == model.chat.tokenizer.decode(expected[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_packed_texts_do_not_see_each_other(model: LocalModel, reference: torch.nn.Module) -> None:
    texts = [model.chat.prompt(prompt) for prompt in PROMPTS]
    packed = model.hidden([token for text in texts for token in text], [place for text in texts for place in range(len(text))], Packed([len(t) for t in texts]))
    alone = torch.cat([reference.model(input_ids=torch.tensor([text])).last_hidden_state[0] for text in texts])
    assert torch.allclose(packed, alone, atol=1e-5)


def test_choices_are_scored_as_if_each_stood_alone(model: LocalModel, reference: torch.nn.Module) -> None:
    options = [["是", "否", "不确定"], ["left", "right now"], ["a"], ["yes", "no"]]
    scored = model.choose(PROMPTS, options)
    for prompt, choices, found in zip(PROMPTS, options, scored, strict=True):
        for choice, likelihood in zip(choices, found, strict=True):
            head, tail = model.chat.prompt(prompt), model.chat.answer(prompt, choice)
            logits = reference(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1]
            expected = logits.log_softmax(-1).gather(1, torch.tensor(tail)[:, None]).sum().item()
            assert likelihood.tokens == len(tail)
            assert likelihood.log_probability == pytest.approx(expected, abs=1e-3)


def test_sampling_repeats_with_its_seed_and_does_not_depend_on_the_batch(model: LocalModel) -> None:
    settings = GenerationSettings(max_new_tokens=10, temperature=1.5, seed=7)
    together = model.generate(PROMPTS, settings)
    assert together == model.generate(PROMPTS, settings)
    assert together[0] == model.generate(PROMPTS[:1], settings)[0]
    assert together != model.generate(PROMPTS, GenerationSettings(max_new_tokens=10, temperature=1.5, seed=8))


def test_an_adapter_starts_as_the_base_and_switching_off_gives_the_base_back(base: Base, tmp_path: Path) -> None:
    plain = LocalModel.open(base, dtype=torch.float32)
    expected = plain.choose(PROMPTS, [["是", "否"]] * 4)
    plain.tuned = attach_method(plain.model, "lora", Shape(rank=4, alpha=8), seed=1)
    assert plain.choose(PROMPTS, [["是", "否"]] * 4) == expected
    for name, tensor in adapter_state(plain.model).items():
        if name.endswith("lora_B.weight"):
            tensor.normal_(0, 0.5)
    changed = plain.choose(PROMPTS, [["是", "否"]] * 4)
    assert changed != expected
    with plain.without_adapter():
        assert plain.choose(PROMPTS, [["是", "否"]] * 4) == expected
    save_adapter(plain.model, tmp_path, base="tiny", rank=4, alpha=8, dropout=0)
    again = LocalModel.open(base, tmp_path, dtype=torch.float32)
    assert again.choose(PROMPTS, [["是", "否"]] * 4) == changed


def test_a_saved_adapter_loads_with_plain_peft_and_gives_the_same_logits(base: Base, tmp_path: Path, reference: torch.nn.Module) -> None:
    from peft import PeftModel

    ours = LocalModel.open(base, dtype=torch.float32)
    attach(ours.model, rank=4, alpha=8, dropout=0, targets=["q_proj", "down_proj"], seed=1)
    for name, tensor in adapter_state(ours.model).items():
        if name.endswith("lora_B.weight"):
            tensor.normal_(0, 0.5)
    save_adapter(ours.model, tmp_path, base="tiny", rank=4, alpha=8, dropout=0)
    theirs = PeftModel.from_pretrained(reference, str(tmp_path))
    ids = ours.chat.prompt(PROMPTS[1])
    expected = theirs(input_ids=torch.tensor([ids])).logits[0]
    states = ours.hidden(ids, range(len(ids)), Packed([len(ids)]))
    assert torch.allclose(states @ ours.head.T, expected, atol=1e-4)
