"""What several examples begin with is read once, and every number stays what it is when each is read by itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from conftest import MakeDataset, conversation, stir
from metier.models import Base, Chat, Encoded, load_tokenizer, load_weights
from metier.models import attention as attention_of
from metier.models.attention import Packed
from metier.models.methods import METHODS, Shape, attach_method
from metier.records import Message
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.alike import families
from metier.training.batches import Row, encode_records, row_at, row_of
from metier.training.examples import Examples
from metier.training.objectives import answer_losses, answers_objective
from metier.training.planning.work import row_shape
from metier.training.settings import BatchSettings, ObjectiveSettings, ValidationSettings

SHAPE = Shape(rank=4, alpha=8, size=16, tokens=5, layers=1)
ASKED = (
    "判断这段话属于左边、右边还是中间，只答一个词。红的书在左边，绿的灯在右边，其余在中间。",
    "Say whether it is left, right or centre. Red is left, green is right.",
)
THINGS = ("红的书", "绿的灯", "the red lamp", "a green book", "书", "lamp")


def talks() -> list[list[Message]]:
    """Two families in two languages, their first answer learnt too, and one talk like no other."""
    found = [
        [
            Message("user", f"{asked} {asked}"),
            Message("assistant", "左边 right", learn=True),
            Message("user", thing),
            Message("assistant", f"{thing} left", learn=True),
        ]
        for asked in ASKED
        for thing in THINGS
    ]
    return [*found, [Message("user", "书在哪里？"), Message("assistant", "在左边", learn=True)]]


def encoded(base: Base, virtual: int = 0) -> list[Encoded]:
    chat = Chat(load_tokenizer(base), virtual=virtual)
    examples = [chat.encode(talk) for talk in talks()]
    random.Random(0).shuffle(examples)
    return examples


def by_example(row: Row, losses: torch.Tensor, count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=losses.dtype).index_add(0, row.owners, losses)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    found = {name: item.grad.clone() for name, item in model.named_parameters() if item.requires_grad and item.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def test_families_spare_what_can_be_spared_and_hold_every_text_once() -> None:
    chance = random.Random(1)
    for _ in range(200):
        beginnings = [[chance.randrange(5) for _ in range(chance.choice([3, 20, 60]))] for _ in range(3)]
        texts = [[*chance.choice(beginnings), *(chance.randrange(5) for _ in range(chance.randrange(1, 9)))] for _ in range(chance.randrange(1, 12))]
        found = families(texts)
        assert sorted(place for family in found for place in family.members) == list(range(len(texts)))
        for family in found:
            assert all(texts[one][: family.common] == texts[other][: family.common] for one, other in pairwise(family.members))
            assert all(len(texts[place]) > family.common for place in family.members)
            assert (family.common >= 16) if len(family.members) > 1 else (family.common == 0)


def test_texts_with_a_long_beginning_are_one_family_though_two_of_them_have_more_in_common() -> None:
    long, more = list(range(100)), list(range(200, 210))
    found = families([[*long, 1], [*long, *more, 2], [*long, *more, 3], [9, 9, 9]])
    assert [(family.members, family.common) for family in found] == [((0, 1, 2), 100), ((3,), 0)]


@pytest.mark.parametrize("method", METHODS)
def test_losses_and_gradients_are_those_of_each_example_by_itself(base: Base, method: str) -> None:
    model = load_weights(base, torch.float32)
    tuned = attach_method(model, method, SHAPE, seed=0)
    stir(model, 0.02)
    examples = encoded(base, tuned.virtual)
    shared, plain = row_of(examples, shared=True), row_of(examples)
    assert len(shared.tokens) < 0.6 * len(plain.tokens)
    assert shared.read == plain.read == len(plain.tokens)
    objective = answers_objective(ObjectiveSettings(kl=0.5, focal=1.0), tuned)
    found = []
    for row in (shared, plain):
        losses = by_example(row, answer_losses(model, row).detach(), len(examples))
        objective(model, row).backward()
        found.append((losses, gradients(model)))
    assert torch.allclose(found[0][0], found[1][0], atol=2e-4)
    assert found[0][1].keys() == found[1][1].keys() != set()
    for name, ours in found[0][1].items():
        assert torch.allclose(ours, found[1][1][name], atol=2e-3, rtol=2e-3), name


@pytest.mark.parametrize("window", [None, 7, 40])
@pytest.mark.parametrize("longest", [1024, 8])
def test_attention_sees_the_beginning_and_itself_alone(monkeypatch: pytest.MonkeyPatch, window: int | None, longest: int) -> None:
    monkeypatch.setattr(attention_of, "_LONG", longest)
    generator = torch.Generator().manual_seed(0)
    lengths, behind = [30, 12, 1, 25], [None, 0, 0, None]
    query, key, value = (torch.randn(1, heads, 68, 16, generator=generator, requires_grad=True) for heads in (4, 2, 2))
    places = {0: range(30), 1: range(30, 42), 2: range(42, 43), 3: range(43, 68)}
    seen = torch.zeros(68, 68, dtype=torch.bool)
    for piece, before in enumerate(behind):
        whole = [*(places[before] if before is not None else ()), *places[piece]]
        for at, one in enumerate(whole):
            for back, other in enumerate(whole[: at + 1]):
                seen[one, other] |= window is None or at - back < window
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=0.3, enable_gqa=True).transpose(1, 2)
    found = Packed(lengths, behind=behind).attend(0, query, key, value, 0.3, window)
    assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.randn(found.shape, generator=generator)
    ours = torch.autograd.grad((found * weights).sum(), (query, key, value))
    theirs = torch.autograd.grad((expected * weights).sum(), (query, key, value))
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def trained_losses(make_dataset: MakeDataset, store: Store, base: Base, name: str) -> tuple[list[float], dict[str, object]]:
    import json

    rows = [conversation(f"{asked} {asked} {thing}", f"{thing} left") for asked in ASKED for thing in THINGS]
    settings = TrainingSettings(
        epochs=3, learning_rate=0.01, precision="float32", batch=BatchSettings(row_tokens=1024, maximum_tokens=256), validation=ValidationSettings(times=2)
    )
    run, _ = train(make_dataset(train=rows, validation=rows[:4]), base, settings, workspace=store.workspace(name))
    steps = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    return [step["loss"] for step in steps if "loss" in step], run.facts


def test_a_training_is_the_same_and_counts_every_examples_tokens(make_dataset: MakeDataset, store: Store, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    original = row_of

    def noted(examples: Sequence[Encoded], *, shared: bool = False) -> Row:
        row = original(examples, shared=shared)
        sizes.append((len(row.tokens), row.read))
        return row

    monkeypatch.setattr("metier.training.batches.row_of", noted)
    ours, facts = trained_losses(make_dataset, store, base, "shared")
    assert sum(tokens for tokens, _ in sizes) < 0.8 * sum(read for _, read in sizes)
    monkeypatch.setattr("metier.training.batches.shares_beginnings", lambda _examples: False)
    monkeypatch.setattr("metier.training.planning.work.shares_beginnings", lambda _examples: False)
    theirs, plain = trained_losses(make_dataset, store, base, "plain")
    assert ours == pytest.approx(theirs, abs=2e-4)
    assert facts["validation_loss"] == pytest.approx(plain["validation_loss"], abs=2e-4)
    assert facts["tokens"] == plain["tokens"]
    assert facts["flops"] < plain["flops"]  # type: ignore[operator]


def test_a_rows_shape_is_known_without_making_it(base: Base) -> None:
    rows = [conversation(f"{asked} {thing}", f"{thing} left") for asked in ASKED for thing in THINGS]
    taught = encode_records(rows, Chat(load_tokenizer(base)), 256)
    places = list(range(len(taught)))
    row, shape = row_at(taught, places), row_shape(taught, places)
    assert shape.tokens == len(row.tokens) < row.read
    sight = [length + (0 if before is None else row.lengths[before]) for length, before in zip(row.lengths, row.behind, strict=True)]
    assert shape.pairs == sum(length * seen for length, seen in zip(row.lengths, sight, strict=True))
    assert shape.labels == len(row.labels)


def test_members_of_a_joint_training_share_no_beginning(base: Base) -> None:
    rows = [conversation(f"{ASKED[0]} {thing}", f"{thing} left") for thing in THINGS]
    one = encode_records(rows[:3], Chat(load_tokenizer(base)), 256)
    together = Examples.together([one, encode_records(rows[3:], Chat(load_tokenizer(base)), 256)])
    row = row_at(together, range(len(rows)))
    assert row.behind == () and len(row.tokens) == row.read == row_shape(together, range(len(rows))).tokens
    assert row.members == (0, 0, 0, 1, 1, 1)
