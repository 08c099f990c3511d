"""Gates that close are left out; ranks go where gradients say that they do most."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import conversation
from metier.errors import ModelError
from metier.models import Base, Chat, load_tokenizer, load_weights
from metier.models.lora import LoraLinear, linear_layers
from metier.models.methods import Shape, Watched, attach_method, open_adapter
from metier.models.methods.gated import Gate
from metier.models.saved import write_saved
from metier.models.sensitivity import allocate, layer_gradients
from metier.training.batches import row_of
from metier.training.objectives import cross_entropy

ROWS = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}") for color, place in (("红", "左边"), ("green", "right")) for thing in ("书", "lamp")]


def test_a_gate_is_exactly_open_or_closed_at_its_ends_and_drawn_between() -> None:
    gate = Gate()
    values = torch.stack([gate().detach() for _ in range(4000)])
    assert float((values > 0).float().mean()) == pytest.approx(float(gate.chance()), abs=0.02)
    assert float(gate.eval()()) == pytest.approx(0.957, abs=0.01)
    with torch.no_grad():
        gate.place.fill_(-1.0)
    assert float(gate()) == 0
    assert float(gate.chance()) < 1e-20
    with torch.no_grad():
        gate.place.fill_(1.0)
    assert float(gate()) == 1


def test_layers_that_do_nothing_for_the_answers_close_and_are_left_out(base: Base, tmp_path: Path) -> None:
    model = load_weights(base, torch.float32)
    tuned = attach_method(model, "gated-lora", Shape(rank=4, alpha=8, gate=2.0), seed=0)
    assert isinstance(tuned, Watched)
    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    row = row_of([Chat(load_tokenizer(base)).encode(record.messages) for record in ROWS])
    parameters = [item for item in model.parameters() if item.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=5e-3)
    model.train()
    torch.manual_seed(0)
    for _ in range(60):
        (cross_entropy(model, row) / len(row.labels) + tuned.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    kept = tuned.config()["target_modules"]
    assert 0 < len(kept) < len(layers)
    assert {name.split(".lora_")[0].removeprefix("base_model.model.") for name in tuned.state()} == set(kept)
    write_saved(tmp_path, tuned.config() | {"base_model_name_or_path": "tiny"}, tuned.state())
    again = load_weights(base, torch.float32)
    open_adapter(again, tmp_path)
    with torch.no_grad():
        assert cross_entropy(again, row).item() == pytest.approx(cross_entropy(model, row).item(), rel=1e-5)
    with torch.no_grad():
        for layer in layers:
            assert isinstance(layer.gate, Gate)
            layer.gate.place.fill_(-1.0)
    with pytest.raises(ModelError, match="every gate closed"):
        tuned.state()


def test_ranks_go_to_the_directions_that_do_most_for_the_same_number_of_parameters() -> None:
    generator = torch.Generator().manual_seed(0)

    def of(values: list[float], rows: int, columns: int) -> torch.Tensor:
        left, right = (torch.linalg.qr(torch.randn(size, len(values), generator=generator))[0] for size in (rows, columns))
        return left @ torch.diag(torch.tensor(values, dtype=torch.float32)) @ right.t()

    gradients = {"strong": of([9, 8, 7, 6, 5, 4], 24, 16), "weak": of([1, 0.5, 0.2, 0.1, 0.1, 0.1], 24, 16), "one": of([10, 0.1, 0.1, 0.1, 0.1, 0.1], 24, 16)}
    assert allocate(gradients, rank=2, most=8) == {"strong": 4, "weak": 1, "one": 1}
    assert allocate(gradients, rank=2, most=3) == {"strong": 3, "weak": 2, "one": 1}, "what one layer may not have goes to the next"
    dear = {"small": of([5, 4, 3, 2], 8, 8), "large": of([5, 4, 3, 2], 40, 40)}
    ranks = allocate(dear, rank=2, most=8)
    assert ranks["small"] > ranks["large"]
    assert ranks["small"] * 16 + ranks["large"] * 80 <= 2 * 96


def test_the_gradients_are_those_of_the_weights_and_nothing_is_left_trainable(base: Base) -> None:
    model = load_weights(base, torch.float32).requires_grad_(False)
    names = linear_layers(model, "all-linear")
    rows = [row_of([Chat(load_tokenizer(base)).encode(record.messages)]) for record in ROWS]
    seen: list[int] = []
    found = layer_gradients(model, names, rows, lambda row: cross_entropy(model, row), lambda: seen.append(1))
    assert len(seen) == len(rows)
    weight = model.get_submodule(names[3]).weight
    assert isinstance(weight, torch.Tensor)
    weight.requires_grad_(True)
    expected = sum(torch.autograd.grad(cross_entropy(model, row), weight)[0] for row in rows)
    assert isinstance(expected, torch.Tensor)
    assert torch.allclose(found[names[3]], expected, rtol=1e-4, atol=1e-6)
    assert [name for name, item in model.named_parameters() if item.requires_grad] == [f"{names[3]}.weight"]
