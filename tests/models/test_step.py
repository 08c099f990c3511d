from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metier.models import Base, GenerationSettings, LocalModel
from metier.models.attention import Cache, Decode, Prefill
from metier.models.sampling import pick, seeded
from metier.models.step import Step, padded


def _windowed(base: Base, folder: Path) -> LocalModel:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=768, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, sliding_window=8
    )
    torch.manual_seed(0)
    MistralForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((base.folder / name).read_bytes())
    return LocalModel.open(Base("windowed", folder, "", ""), dtype=torch.float32)


@pytest.mark.parametrize("windowed", [False, True])
@torch.inference_mode()
def test_a_step_attends_as_decoding_does_while_rows_grow_through_length_classes(base: Base, tmp_path: Path, windowed: bool) -> None:
    model = _windowed(base, tmp_path) if windowed else LocalModel.open(base, dtype=torch.float32)
    prompts = [list(range(3, 3 + length)) for length in (1, 5, 62, 63, 64, 130)]
    lengths = [len(prompt) for prompt in prompts]
    caches = [Cache(6, 256), Cache(8, 256)]
    tokens, places = [token for prompt in prompts for token in prompt], [place for length in lengths for place in range(length)]
    model.hidden(tokens, places, Prefill(lengths, caches[0]))
    for row in (5, 0, 3, 1, 4, 2):
        model.hidden(prompts[row], range(lengths[row]), Prefill([lengths[row]], caches[1], [row]))
    filler = [0] * (padded(6) - 6)
    assert len(filler) == 2
    for number in range(12):
        new = [number + 10 + row for row in range(6)]
        expected = model.hidden(new, list(caches[0].lengths), Decode(caches[0], range(6)))
        positions = caches[1].lengths[:6] + filler
        found = model.hidden(new + filler, positions, Step(caches[1], 6))[:6]
        assert torch.allclose(found, expected, atol=1e-5)


@torch.inference_mode()
def test_rows_can_be_moved_and_are_empty_after_clearing(base: Base) -> None:
    model = LocalModel.open(base, dtype=torch.float32)
    cache = Cache(3, 64)
    model.hidden([5, 6, 7], range(3), Prefill([3], cache, [2]))
    cache.move(2, 0)
    cache.clear(2)
    assert cache.lengths == [3, 0, 0]
    for keys, values in cache.layers.values():
        assert keys[0].any()
        assert not keys[2].any()
        assert not values[2].any()
    alone = Cache(1, 64)
    model.hidden([5, 6, 7], range(3), Prefill([3], alone))
    assert torch.equal(model.hidden([9, 0, 0, 0], [3, 0, 0, 0], Step(cache, 1))[:1], model.hidden([9, 0, 0, 0], [3, 0, 0, 0], Step(alone, 1))[:1])


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = seeded(1)
    drawn = [pick(logits, GenerationSettings(temperature=1.0), generator) for _ in range(4000)]
    for token, share in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert drawn.count(token) / 4000 == pytest.approx(share, abs=0.03)
    nucleus = {pick(logits, GenerationSettings(temperature=1.0, top_p=0.75), generator) for _ in range(500)}
    assert nucleus == {0, 1}
    assert {pick(logits, GenerationSettings(temperature=1.0, top_p=1e-6), generator) for _ in range(50)} == {0}
    assert pick(logits, GenerationSettings(temperature=0), generator) == 0


def test_a_nucleus_wider_than_what_is_sorted_at_first_is_drawn_from_whole() -> None:
    flat = torch.zeros(5000)
    generator = seeded(2)
    drawn = [pick(flat, GenerationSettings(temperature=1.0, top_p=0.9), generator) for _ in range(300)]
    assert len(set(drawn)) > 250
    assert all(0 <= token < 5000 for token in drawn)
    assert [pick(flat, GenerationSettings(temperature=1.0), seeded(-7)) for _ in range(3)] == [pick(flat, GenerationSettings(temperature=1.0), seeded(-7))] * 3
