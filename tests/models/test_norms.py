from __future__ import annotations

import pytest
import torch
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from metier.models.norms import FrozenNorm, quicken


def holder(norm: torch.nn.Module) -> torch.nn.Module:
    model = torch.nn.Module()
    model.norm = norm
    return model


@pytest.mark.parametrize("family", [Gemma3RMSNorm, LlamaRMSNorm])
@pytest.mark.parametrize("outlier", [1.0, 300.0])
def test_the_quick_norm_gives_values_and_gradients_of_the_familys_own(family: type[torch.nn.Module], outlier: float) -> None:
    generator = torch.Generator().manual_seed(0)
    own = family(64)
    own.weight.data = torch.rand(64, generator=generator)
    own.weight.data[3] = outlier
    own.requires_grad_(False)
    model = holder(own)
    assert quicken(model) == 1
    assert isinstance(model.norm, FrozenNorm)
    x = torch.randn(2, 5, 64, generator=generator)
    seeds = torch.randn(2, 5, 64, generator=generator)
    results = []
    for norm in (own, model.norm):
        given = x.clone().requires_grad_(True)
        output = norm(given)
        output.backward(seeds)
        results.append((output, given.grad))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-5, atol=1e-5)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-3, atol=1e-4)


def test_a_norm_of_another_meaning_is_left_alone() -> None:
    class HalvingRMSNorm(LlamaRMSNorm):
        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            return super().forward(hidden_states) / 2

    model = holder(HalvingRMSNorm(16))
    assert quicken(model) == 0
    assert isinstance(model.norm, HalvingRMSNorm)
