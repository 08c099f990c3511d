from __future__ import annotations

import pytest
import torch
from torch.nn.functional import kl_div

from metier.models.divergence import Side, divergences
from metier.models.head import ROWS_AT_ONCE


def logits_of(side: Side) -> torch.Tensor:
    found = side.states @ side.head.t()
    return found if side.softcap is None else torch.tanh(found / side.softcap) * side.softcap


@pytest.mark.parametrize("softcap", [None, 15.0])
@pytest.mark.parametrize("rows", [1, ROWS_AT_ONCE + 2])
@pytest.mark.parametrize(("temperature", "more"), [(1.0, 0), (2.5, 7)])
def test_it_is_the_divergence_of_the_whole_distributions_with_its_gradients(rows: int, softcap: float | None, temperature: float, more: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    hidden, weights = torch.randn(rows, 16, generator=generator), torch.rand(rows, generator=generator)
    head = torch.randn(9001, 16, generator=generator)
    reference = Side(torch.randn(rows, 24, generator=generator), torch.randn(9001 + more, 24, generator=generator))
    wanted = (logits_of(reference)[:, :9001] / temperature).log_softmax(1)
    sides = [Side(hidden.clone().requires_grad_(True), head.clone().requires_grad_(True), softcap) for _ in range(2)]
    expected = kl_div((logits_of(sides[0]) / temperature).log_softmax(1), wanted, reduction="none", log_target=True).sum(dim=1)
    found = divergences(sides[1], reference, temperature=temperature)
    (expected * weights).sum().backward()
    (found * weights).sum().backward()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    for theirs, ours in ((sides[0].states, sides[1].states), (sides[0].head, sides[1].head)):
        assert theirs.grad is not None
        assert ours.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)
    same = Side(hidden, head, softcap)
    assert float(divergences(same, same).max()) < 1e-5
