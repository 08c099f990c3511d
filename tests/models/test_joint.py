"""One update of which each token uses the shared directions and its member's: exact, forward and backward, against each member's adapter alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from conftest import conversation
from metier.errors import ModelError
from metier.models import Base, Chat, Encoded, load_tokenizer, load_weights
from metier.models.attention import Packed
from metier.models.lorafile import load_adapter
from metier.models.methods import Joint, Shape, attach_joint, attach_method, member_state
from metier.models.saved import write_saved
from metier.training.batches import Row, row_of
from metier.training.members import choosing
from metier.training.objectives import answer_losses, answers_objective
from metier.training.settings import ObjectiveSettings

TALKS = [("红书在哪里？", "书在左边"), ("Where is the lamp?", "It is on the left"), ("绿灯在哪里？", "灯在右边"), ("Where is the book?", "On the table")]
OWN, MEMBERS = 3, 3


def examples_of(base: Base) -> list[Encoded]:
    chat = Chat(load_tokenizer(base))
    return [chat.encode(conversation(*talk).messages) for talk in TALKS]


def joined(base: Base, method: str = "lora", **sizes: object) -> tuple[object, Joint]:
    """Return the tiny model with three members' parts in which every number is something."""
    model = load_weights(base, torch.float32)
    shape = Shape(**{"rank": 4, "alpha": 8.0, **sizes})
    tuned = attach_joint(model, method, shape, own=OWN, members=MEMBERS, seed=3)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(model.named_parameters()):
        if name.endswith("lora_b"):
            torch.nn.init.normal_(parameter, 0, 0.1, generator=generator)
    return model, tuned


def row_with(examples: list[Encoded], members: tuple[int, ...]) -> Row:
    return replace(row_of(examples), members=members)


def save(base: Base, tuned: Joint, member: int, folder: Path) -> Path:
    tensors = member_state(tuned.state(), member, own=OWN, members=MEMBERS)
    write_saved(folder, tuned.config() | {"base_model_name_or_path": base.name}, tensors)
    return folder


@pytest.mark.parametrize(("method", "sizes"), [("lora", {}), ("rslora", {}), ("lora", {"ranks": {"q_proj": 2}, "targets": ("q_proj", "down_proj")})])
def test_a_mixed_row_is_what_each_members_adapter_makes_of_its_examples(base: Base, method: str, sizes: dict[str, object], tmp_path: Path) -> None:
    model, tuned = joined(base, method, **sizes)
    examples, members = examples_of(base), (0, 1, 2, 1)
    mixed = choosing(tuned, answer_losses)(model, row_with(examples, members))
    alone = []
    for member in range(MEMBERS):
        own = load_weights(base, torch.float32)
        load_adapter(own, save(base, tuned, member, tmp_path / str(member)))
        alone.append(own)
    expected = torch.cat([answer_losses(alone[member], row_of([example])) for example, member in zip(examples, members, strict=True)])
    assert torch.allclose(mixed, expected, atol=1e-4)
    other = choosing(tuned, answer_losses)(model, row_with(examples, (1, 1, 2, 1)))
    assert not torch.allclose(mixed, other, atol=1e-4), "the first example is another member's now"


def test_what_a_member_gets_is_the_same_adapter_in_peft(base: Base, tmp_path: Path) -> None:
    model, tuned = joined(base, "rslora")
    (example, *_) = examples_of(base)
    ids, places = torch.tensor([example.tokens]), torch.arange(len(example))[None]
    for member in range(MEMBERS):
        tuned.choose((member,), (len(example),))
        ours = model(input_ids=ids, position_ids=places, plan=Packed((len(example),)), use_cache=False).logits
        folder = save(base, tuned, member, tmp_path / str(member))
        theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32), folder)
        assert theirs.peft_config["default"].r == 4 + OWN
        assert torch.allclose(ours, theirs(input_ids=ids).logits, atol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_members_tokens_leave_the_other_members_part_alone(base: Base, dropout: float) -> None:
    model, tuned = joined(base, dropout=dropout)
    model.train()
    measure = choosing(tuned, answers_objective(ObjectiveSettings(kl=0.1), tuned))
    measure(model, row_with(examples_of(base)[:2], (0, 0))).backward()
    for name, parameter in model.named_parameters():
        if name.endswith("lora_a"):
            assert parameter.grad[: 4 + OWN].abs().sum() > 0
            assert not parameter.grad[4 + OWN :].any(), name
        elif name.endswith("lora_b"):
            assert parameter.grad[:, : 4 + OWN].abs().sum() > 0
            assert not parameter.grad[:, 4 + OWN :].any(), name


def test_the_gradients_of_a_mixed_row_are_those_of_plain_autograd(base: Base) -> None:
    gradients = []
    for dropout in (0.0, 1e-12):  # with dropout, however small, autograd differentiates by itself
        model, tuned = joined(base, dropout=dropout)
        model.train()
        choosing(tuned, answer_losses)(model, row_with(examples_of(base), (0, 1, 1, 0))).sum().backward()
        gradients.append({name: item.grad for name, item in model.named_parameters() if item.requires_grad})
    for name, ours in gradients[0].items():
        assert torch.allclose(ours, gradients[1][name], atol=1e-4, rtol=1e-3), name


def test_it_starts_as_the_base_model_and_the_shared_part_as_it_would_alone(base: Base) -> None:
    model, plain = load_weights(base, torch.float32), load_weights(base, torch.float32)
    row = row_with(examples_of(base), (0, 1, 0, 1))
    before = answer_losses(model, row)
    tuned = attach_joint(model, "lora", Shape(rank=4, alpha=8.0), own=OWN, members=MEMBERS, seed=3)
    assert torch.allclose(choosing(tuned, answer_losses)(model, row), before, atol=1e-5)
    alone = attach_method(plain, "lora", Shape(rank=4, alpha=8.0), seed=3).state()
    together = tuned.state()
    assert all(torch.equal(together[name][:4], tensor) for name, tensor in alone.items() if "lora_A" in name)


def test_an_own_rank_larger_than_a_layer_is_refused(base: Base) -> None:
    with pytest.raises(ModelError, match=r"(?s)larger than the layer .*joint\.rank"):
        attach_joint(load_weights(base, torch.float32), "lora", Shape(rank=4), own=4096, members=2, seed=0)


def test_the_distance_from_the_base_is_nobodys(base: Base) -> None:
    _, tuned = joined(base)
    with pytest.raises(ModelError, match=r"objectives\.kl"):
        tuned.distance()
