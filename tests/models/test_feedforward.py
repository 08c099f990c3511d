"""Gated feed-forward layers keep less for the backward pass, and give the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import Gemma3TextConfig, LlamaConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3MLP
from transformers.models.llama.modeling_llama import LlamaMLP

from metier.models.feedforward import keep_less
from training.observing import saved_by_autograd

HIDDEN, INNER, TOKENS = 32, 20, 7


def layer_of(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if family == "gemma":
        return Gemma3MLP(Gemma3TextConfig(hidden_size=HIDDEN, intermediate_size=INNER))
    return LlamaMLP(LlamaConfig(hidden_size=HIDDEN, intermediate_size=INNER))


@pytest.mark.parametrize("family", ["gemma", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("trained", ["nothing", "gate_proj", "up_proj", "down_proj", "everything"])
def test_the_same_output_and_gradients(family: str, dtype: torch.dtype, trained: str) -> None:
    own = layer_of(family).to(dtype).requires_grad_(False)
    for name, part in own.named_children():
        part.requires_grad_(trained in {name, "everything"})
    light = copy.deepcopy(own)
    assert keep_less(torch.nn.ModuleList([light])) == 1
    x = torch.randn(TOKENS, HIDDEN, dtype=dtype)
    found = []
    for layer in (own, light):
        given = x.clone().requires_grad_(trained in {"nothing", "everything"})
        output = layer(given)
        output.square().sum().backward()
        found.append([output, given.grad, *(value.grad for value in layer.parameters())])
    for expected, got in zip(*found, strict=True):
        assert (expected is None) == (got is None)
        assert expected is None or torch.equal(expected, got)


def test_a_third_of_what_the_product_keeps_is_not_kept() -> None:
    own = layer_of("gemma").requires_grad_(False)
    light = copy.deepcopy(own)
    keep_less(torch.nn.ModuleList([light]))
    kept = []
    for layer in (own, light):
        given = torch.randn(TOKENS, HIDDEN).requires_grad_(True)
        with saved_by_autograd(layer) as found:
            layer(given)
        kept.append(sum(found.values()))
    assert kept == [3 * TOKENS * INNER * 4, 2 * TOKENS * INNER * 4]


def test_names_and_copies_stay_as_they_were() -> None:
    layer = layer_of("llama")
    names = list(layer.state_dict())
    keep_less(torch.nn.ModuleList([layer]))
    assert list(layer.state_dict()) == names
    assert type(layer).__name__ == "LlamaMLP"
    assert isinstance(layer, LlamaMLP)
    twin = copy.deepcopy(layer)
    x = torch.randn(TOKENS, HIDDEN)
    assert torch.equal(twin(x), layer(x))


def test_a_layer_of_another_meaning_is_left_alone() -> None:
    class Doubled(LlamaMLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    layer = Doubled(LlamaConfig(hidden_size=HIDDEN, intermediate_size=INNER))
    assert keep_less(torch.nn.ModuleList([layer])) == 0
    assert type(layer) is Doubled
