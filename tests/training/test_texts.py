"""Plain texts are taught to be continued: whole, in windows, and measured the same way they are taught."""

from __future__ import annotations

import math

import pytest
import torch

from conftest import MakeDataset, conversation
from metier.models import Base, Chat, LocalModel, load_tokenizer
from metier.records import Record, identify
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import encode_records, row_of
from metier.training.objectives import answer_losses
from metier.training.settings import AdaptationSettings, BatchSettings, ValidationSettings

TEXTS = [
    "第一条 养蜂人应当在春天检查蜂箱，并记录子脾的数量。第二条 记录保存三年。",
    "Bees are checked in spring. The keeper writes down how many brood frames there are, and keeps the notes for three years.",
]


def plain(text: str) -> Record:
    made = Record(id="", text=text, task="text", language="zh" if ord(text[0]) > 255 else "en")
    return Record(id=identify(made), text=text, task="text", language=made.language)


@pytest.mark.parametrize("text", TEXTS)
def test_no_token_of_a_text_is_lost_between_its_windows(base: Base, text: str) -> None:
    chat = Chat(load_tokenizer(base))
    tokenizer = chat.tokenizer
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    windows = chat.encode_text(text, 16)
    assert len(windows) > 1
    assert all(len(window) <= 16 for window in windows)
    assert all(window.tokens[0] == tokenizer.bos_token_id and not window.learn[0] for window in windows)
    assert [token for window in windows for token, learn in zip(window.tokens, window.learn, strict=True) if learn] == [*whole, tokenizer.eos_token_id]


def test_texts_and_conversations_share_rows(base: Base) -> None:
    taught = encode_records([plain(TEXTS[0]), conversation("几张子脾？", "三张"), plain("  ")], Chat(load_tokenizer(base)), 128)
    assert [drop.reason for drop in taught.drops] == ["nothing_to_learn"]
    assert {origin.task for origin in taught.origins} >= {"text"}
    row = row_of(taught.examples)
    assert len(row.labels) == sum(sum(example.learn[1:]) for example in taught.examples)  # type: ignore[union-attr]


def test_a_text_s_likelihood_is_the_loss_that_training_sees(base: Base) -> None:
    model = LocalModel.open(base, dtype=torch.float32)
    ((found,), (again,)) = model.choose([(), ()], [(TEXTS[0],), (TEXTS[1],)])
    for text, one in zip(TEXTS, (found, again), strict=True):
        row = row_of(model.chat.encode_text(text, 1024))
        with torch.no_grad():
            loss = float(answer_losses(model.model, row).sum())
        assert one.log_probability == pytest.approx(-loss, rel=1e-4)
        assert one.tokens == len(row.labels)


def test_a_long_text_is_read_in_windows_and_added_up(base: Base) -> None:
    model = LocalModel.open(base, dtype=torch.float32)
    text = " ".join(f"{TEXTS[1]} {number}" for number in range(40))
    windows = model.chat.encode_text(text, 1024)
    assert len(windows) > 1
    ((found,),) = model.choose([()], [(text,)])
    losses = [float(answer_losses(model.model, row_of([window])).sum()) for window in windows]
    assert found.log_probability == pytest.approx(-math.fsum(losses), rel=1e-4)


def test_a_text_that_was_taught_becomes_likelier(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    settings = TrainingSettings(
        adaptation=AdaptationSettings(rank=8),
        epochs=40,
        learning_rate=1e-2,
        precision="float32",
        batch=BatchSettings(row_tokens=256, maximum_tokens=32),
        validation=ValidationSettings(times=0),
    )
    run, adapter = train(make_dataset(train=[plain(text) for text in TEXTS]), base, settings, workspace=store.workspace("texts"))
    assert run.facts["examples"] > 2, "texts longer than an example are several"
    expert = LocalModel.open(base, adapter.path, dtype=torch.float32)
    ((tuned,),) = expert.choose([()], [(TEXTS[0],)])
    with expert.without_adapter():
        ((plainly,),) = expert.choose([()], [(TEXTS[0],)])
    assert tuned.log_probability > plainly.log_probability / 2
