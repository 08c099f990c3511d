from __future__ import annotations

import pytest
import torch
from torch.nn.functional import kl_div

from metier.models.divergence import divergences
from metier.models.head import ROWS_AT_ONCE


@pytest.mark.parametrize("softcap", [None, 15.0])
@pytest.mark.parametrize("rows", [1, ROWS_AT_ONCE + 2])
def test_it_is_the_divergence_of_the_whole_distributions_with_its_gradient(rows: int, softcap: float | None) -> None:
    generator = torch.Generator().manual_seed(rows)
    hidden, reference = (torch.randn(rows, 16, generator=generator) for _ in range(2))
    head, weights = torch.randn(9001, 16, generator=generator), torch.rand(rows, generator=generator)
    ours, theirs = hidden.clone().requires_grad_(True), hidden.clone().requires_grad_(True)
    logits, wanted = theirs @ head.t(), reference @ head.t()
    if softcap is not None:
        logits, wanted = torch.tanh(logits / softcap) * softcap, torch.tanh(wanted / softcap) * softcap
    expected = kl_div(logits.log_softmax(1), wanted.log_softmax(1), reduction="none", log_target=True).sum(dim=1)
    found = divergences(ours, reference, head, softcap)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)
    assert float(divergences(hidden, hidden, head, softcap).max()) < 1e-5
