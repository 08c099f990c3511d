from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile

from metier.models.head import ROWS_AT_ONCE, label_loss, next_logits, token_log_probabilities

VOCABULARY, HIDDEN = 10_000, 32


def parts(rows: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, HIDDEN, generator=generator) * scale
    head = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    return hidden, head, torch.randint(0, VOCABULARY, (rows,), generator=generator), torch.rand(rows, generator=generator)


@pytest.mark.parametrize("softcap", [None, 20.0])
@pytest.mark.parametrize("rows", [1, 7, ROWS_AT_ONCE + 3])
def test_the_loss_and_its_gradient_are_those_of_cross_entropy(rows: int, softcap: float | None) -> None:
    hidden, head, labels, weights = parts(rows)
    ours = hidden.clone().requires_grad_(True)
    (label_loss(ours, head, labels, weights, softcap) * 0.5).backward()
    theirs = hidden.clone().requires_grad_(True)
    logits = theirs @ head.T
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    expected = (cross_entropy(logits, labels, reduction="none") * weights).sum()
    (expected * 0.5).backward()
    assert label_loss(hidden, head, labels, weights, softcap).item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)


@pytest.mark.parametrize("softcap", [None, 20.0])
def test_a_head_that_is_trained_gets_the_gradient_of_cross_entropy(softcap: float | None) -> None:
    hidden, head, labels, weights = parts(ROWS_AT_ONCE + 5)
    ours, theirs = head.clone().requires_grad_(True), head.clone().requires_grad_(True)
    label_loss(hidden, ours, labels, weights, softcap).backward()
    logits = hidden @ theirs.T
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    (cross_entropy(logits, labels, reduction="none") * weights).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-3)


@pytest.mark.parametrize("offset", [0.0, 300.0, -300.0])
def test_logits_of_any_size_have_a_finite_loss_and_gradient(offset: float) -> None:
    hidden, head, labels, weights = parts(3, scale=100.0 if offset == 0.0 else 1.0)
    hidden[:, 0], head[:, 0] = offset, 1.0
    ours, theirs = hidden.clone().requires_grad_(True), hidden.clone().requires_grad_(True)
    loss = label_loss(ours, head, labels, weights)
    expected = (cross_entropy(theirs @ head.T, labels, reduction="none") * weights).sum()
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-3)


def test_log_probabilities_of_several_labels_at_one_position() -> None:
    hidden, head, _, _ = parts(ROWS_AT_ONCE + 9)
    rows = torch.tensor([4, 0, 4, ROWS_AT_ONCE + 8, 4])
    labels = torch.tensor([1, 2, 3, 4, 1])
    expected = (hidden @ head.T).log_softmax(-1)[rows, labels]
    assert torch.allclose(token_log_probabilities(hidden, head, rows, labels), expected, atol=1e-4)


def test_frozen_bf16_weights_are_never_copied_for_a_slice_of_the_hidden_states() -> None:
    """A frozen bf16 weight applied to a non-contiguous 3-D slice is copied whole for each row of the batch (torch 2.13, CPU)."""
    hidden = torch.randn(8, 5, HIDDEN, dtype=torch.bfloat16)
    head = torch.randn(VOCABULARY, HIDDEN, dtype=torch.bfloat16)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        next_logits(hidden[:, -1], head)
        label_loss(hidden[:, 1].clone().requires_grad_(True), head, torch.zeros(8, dtype=torch.long), torch.ones(8)).backward()
    batched = [event for event in seen.events() if event.name == "aten::bmm"]
    copied = [event for event in seen.events() if event.name == "aten::copy_" and event.input_shapes[0][-2:] in ([VOCABULARY, HIDDEN], [HIDDEN, VOCABULARY])]
    assert not batched
    assert not copied


def test_the_logits_of_a_row_are_those_of_the_product_whoever_stands_beside_it() -> None:
    hidden, head = torch.randn(20, 64), torch.randn(9000, 64) * 0.1
    together = next_logits(hidden, head, 30.0)
    assert torch.allclose(together, torch.tanh(hidden @ head.T / 30.0) * 30.0, atol=1e-4)
    for rows in (4, 8, 12):
        assert torch.equal(next_logits(hidden[:rows], head, 30.0), together[:rows])
