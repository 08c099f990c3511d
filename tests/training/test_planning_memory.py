"""What is counted for the backward pass is what autograd saves, to the byte; what falls and rises with the settings does so by the right amount."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from metier.models.lora import attach
from metier.models.methods import METHODS, attach_method
from metier.models.norms import quicken
from metier.training.objectives import cross_entropy
from metier.training.planning.memory import Means, RowShape, cache_bytes, kept_for_backward, memory
from metier.training.planning.methods import Method, trainable_parameters
from metier.training.planning.shape import linear_weights, parameters
from training.observing import saved_by_autograd
from training.test_planning_counts import CONFIGS, SIZED, as_method, build, row_and_shape

LENGTHS = (40, 70, 30)


def saved_bytes(model: Any, row: Any) -> int:
    """Return the bytes of what autograd saves in a forward pass, each storage once, the model's own weights left out."""
    with saved_by_autograd(model) as found:
        cross_entropy(model, row)
    return sum(found.values())


def prepared(name: str, dtype: torch.dtype, targets: Any, dropout: float = 0.0) -> tuple[Any, Any]:
    model, shape = build(name, dtype)
    model.requires_grad_(False)
    assert quicken(model) == shape.layers * (shape.norms + 2 * shape.query_norm) + 1
    attach(model, rank=4, alpha=8, dropout=dropout, targets=targets, seed=0)
    return model.train(), shape


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("targets", ["all-linear", ("q_proj", "v_proj"), ("o_proj",), ("up_proj",), ("gate_proj", "k_proj"), ("down_proj",)], ids=str)
def test_what_is_kept_for_the_backward_pass_to_the_byte(name: str, dtype: torch.dtype, targets: Any) -> None:
    model, shape = prepared(name, dtype, targets)
    row, described = row_and_shape(LENGTHS, shape.vocabulary)
    counted = kept_for_backward(shape, Method("lora", rank=4, targets=targets), described, Means(dtype.itemsize))
    assert counted == saved_bytes(model, row)


@pytest.mark.parametrize("name", ["gemma3", "llama", "qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "qlora"])
def test_what_every_method_keeps_for_the_backward_pass(name: str, dtype: torch.dtype, method: str) -> None:
    model, shape = build(name, dtype)
    model.requires_grad_(False)
    quicken(model)
    virtual = attach_method(model, method, SIZED, seed=0).virtual
    row, described = row_and_shape(LENGTHS, shape.vocabulary)
    starts = [sum(LENGTHS[:number]) for number in range(len(LENGTHS))]
    for start in starts:
        row.tokens[start : start + virtual] = -1 - torch.arange(virtual)
    counted = kept_for_backward(shape, as_method(method, SIZED), described, Means(dtype.itemsize))
    assert counted == pytest.approx(saved_bytes(model.train(), row), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_dropout_and_long_examples_within_a_few_per_cent(dtype: torch.dtype) -> None:
    for lengths, dropout in ((LENGTHS, 0.1), ((1100, 60), 0.0)):
        model, shape = prepared("gemma3", dtype, "all-linear", dropout)
        row, described = row_and_shape(lengths, shape.vocabulary)
        counted = kept_for_backward(shape, Method("lora", rank=4), described, Means(dtype.itemsize, dropout=dropout > 0))
        assert counted == pytest.approx(saved_bytes(model, row), rel=0.06)


ROW = RowShape(1000, 250_000, 400, 4, 250)


def test_the_parts_of_memory_of_a_model_of_seven_thousand_million_parameters() -> None:
    _, tiny = build("llama")
    shape = replace(tiny, vocabulary=32_000, hidden=4096, layers=32, heads=32, shared_heads=32, head_size=128, inner=11_008, tied=False)
    assert parameters(shape) == 6_738_415_616  # Llama 2 7B, as published
    found = memory(shape, Method("lora", rank=16), ROW, Means(2, rows=2))
    trained = trainable_parameters(shape, Method("lora", rank=16))
    assert trained == 39_976_960
    assert (found.weights, found.trained, found.gradients, found.optimiser) == (2 * 6_738_415_616, 4 * trained, 4 * trained, 8 * trained)
    quantised = memory(shape, Method("qlora", rank=16), ROW, Means(2, rows=2))
    linear = 32 * linear_weights(shape)
    assert quantised.weights == pytest.approx(linear * 4.127 / 8 + 2 * (parameters(shape) - linear), rel=1e-4)
    full = memory(shape, Method("full"), ROW, Means(2, rows=2))
    assert full.weights + full.trained + full.gradients + full.optimiser == 18 * parameters(shape), "the base's own weights stay beside the trained ones"
    assert cache_bytes(shape, 1, 2) == 2 * 32 * 4096 * 2


def test_rows_of_a_step_cost_gradients_and_no_activations() -> None:
    _, shape = build("gemma3")
    one, three = (memory(shape, Method("lora", rank=64), ROW, Means(2, rows=rows)) for rows in (1, 3))
    assert three.activations == one.activations
    assert three.gradients == 4 * trainable_parameters(shape, Method("lora", rank=64)) >= one.gradients


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_an_estimate_that_grows_with_the_row(name: Any) -> None:
    _, shape = build("qwen2")
    small, large = (memory(shape, Method(name), row, Means(2)) for row in (ROW, RowShape(2000, 500_000, 800, 8, 250)))
    assert 0 < small.total < large.total
    assert small.holes > 0
    assert memory(shape, Method(name), ROW, Means(2, accelerator=True)).holes == 0


def test_only_the_last_layers_keep_anything_in_partial_training() -> None:
    _, shape = build("llama")
    kept = [kept_for_backward(shape, Method("partial", last=last), ROW, Means(4)) for last in (1, 2, 3)]
    assert kept[1] > kept[0]
    assert kept[2] - kept[1] == kept[1] - kept[0]
