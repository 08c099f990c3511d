"""Rows are filled up to few lengths, and nothing that is read, learnt or divided into members changes by it."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from metier.models import Base, Chat, GenerationSettings, LocalModel, load_tokenizer, load_weights
from metier.models.attention import Packed
from metier.models.body import hidden_states
from metier.models.divergence import Side, divergences
from metier.models.filling import filled, with_filler
from metier.models.head import label_losses, token_log_probabilities
from metier.models.methods import Shape, attach_method
from metier.records import Message


def test_few_lengths_are_left_and_hardly_anything_is_wasted() -> None:
    assert [filled(count) for count in (0, 1, 15, 16, 17, 33, 100, 150, 1001, 1024, 1025)] == [0, 1, 15, 16, 17, 34, 100, 152, 1024, 1024, 1088]
    counts = range(1, 5000)
    assert all(count <= filled(count) <= count + count / 16 for count in counts)
    assert all(filled(filled(count)) == filled(count) for count in counts)
    assert len({filled(count) for count in range(1, 1025)}) <= 112
    assert len({filled(count) for count in range(513, 1025)}) == 16
    assert filled(1001, accelerator=True) == 1001


def test_zeros_stand_behind_rows() -> None:
    rows = torch.randn(37, 3, requires_grad=True)
    more = with_filler(rows)
    assert more.shape == (38, 3)
    assert torch.equal(more[:37], rows)
    assert not more[37:].any()
    assert with_filler(torch.arange(32)).tolist() == list(range(32))
    assert with_filler(torch.arange(33)).tolist() == [*range(33), 0]


@pytest.mark.parametrize("long", [False, True], ids=["products", "kernel"])
def test_states_and_gradients_are_those_of_a_row_without_filler(base: Base, long: bool) -> None:
    draw = random.Random(3)
    lengths = [1100, 7] if long else [13, 40, 24]
    assert filled(sum(lengths)) > sum(lengths)
    tokens = torch.tensor([draw.randrange(3, 300) for _ in range(sum(lengths))])
    positions = torch.cat([torch.arange(length) for length in lengths])
    model: Any = load_weights(base, torch.float32)
    attach_method(model, "lora", Shape(rank=4, alpha=8.0), seed=0)
    learnt = [item for item in model.parameters() if item.requires_grad]
    with torch.no_grad():
        for item in learnt:
            item.add_(torch.randn(item.shape, generator=torch.Generator().manual_seed(0)) * 0.02)
    weigh = torch.randn(sum(lengths), model.config.hidden_size, generator=torch.Generator().manual_seed(1))

    def gradients(states: torch.Tensor) -> list[torch.Tensor]:
        found = torch.autograd.grad((states * weigh).sum(), learnt)
        return [*found, states.detach()]

    plain = model.get_decoder()(input_ids=tokens[None], position_ids=positions[None], plan=Packed(lengths), use_cache=False).last_hidden_state[0]
    for one, other in zip(gradients(plain), gradients(hidden_states(model.get_decoder(), tokens, positions, Packed(lengths))), strict=True):
        assert one.shape == other.shape
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


def test_losses_likelihoods_and_divergences_are_those_of_each_label_alone() -> None:
    drawn = torch.Generator().manual_seed(0)
    states, head = torch.randn(41, 24, generator=drawn), torch.randn(500, 24, generator=drawn)
    labels = torch.randint(0, 500, (41,), generator=drawn)
    expected = torch.nn.functional.cross_entropy(states @ head.t(), labels, reduction="none")
    one, other = states.clone().requires_grad_(), states.clone().requires_grad_()
    found = label_losses(one, head, labels)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(token_log_probabilities(states, head, torch.arange(41), labels), -expected, atol=1e-4)
    found.sum().backward()
    torch.nn.functional.cross_entropy(other @ head.t(), labels, reduction="sum").backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-4)
    apart = divergences(Side(states, head), Side(states.flip(0), head))
    said, known = (states @ head.t()).log_softmax(1), (states.flip(0) @ head.t()).log_softmax(1)
    assert apart.shape == (41,)
    assert torch.allclose(apart, (known.exp() * (known - said)).sum(1), atol=1e-4)


def test_a_model_answers_as_before_for_any_number_of_tokens(base: Base) -> None:
    model = LocalModel(load_weights(base, torch.float32), Chat(load_tokenizer(base)))
    with torch.inference_mode():
        whole = model.hidden(list(range(3, 103)), range(100), Packed([100]))
        for count in (33, 57, 99):
            assert torch.allclose(model.hidden(list(range(3, 3 + count)), range(count), Packed([count])), whole[:count], atol=1e-4)


def test_more_answers_at_a_time_than_are_left_unfilled(base: Base) -> None:
    chat, weights = Chat(load_tokenizer(base)), load_weights(base, torch.float32)
    prompts = [[Message("user", f"{number} 在哪里？")] for number in range(35)]
    assert filled(35) > 35
    wanted = GenerationSettings(max_new_tokens=6)
    together = LocalModel(weights, chat, batch_rows=40).generate(prompts, wanted)
    assert [item.text for item in together] == [LocalModel(weights, chat).generate([prompt], wanted)[0].text for prompt in prompts]
