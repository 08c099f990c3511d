"""The map of attention is the attention that the model has, and the page shows it without asking anybody."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from conftest import MakeDataset, conversation
from metier.errors import InputError
from metier.evaluation.attention import MOST_TOKENS, attention_of, attention_page, records_named
from metier.models import Base, LocalModel
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.settings import AdaptationSettings, BatchSettings, ValidationSettings

ROWS = [conversation("红色的笔在哪里？", "笔在左边"), conversation("Where is the <lamp>?", "On the right.")]


@pytest.fixture
def expert(make_dataset: MakeDataset, base: Base, store: Store) -> LocalModel:
    settings = TrainingSettings(
        adaptation=AdaptationSettings(rank=4),
        epochs=8,
        learning_rate=2e-2,
        precision="float32",
        batch=BatchSettings(row_tokens=128),
        validation=ValidationSettings(times=0),
    )
    _, adapter = train(make_dataset(train=ROWS), base, settings, workspace=store.workspace("expert"))
    return LocalModel.open(base, adapter.path, dtype=torch.float32)


def test_it_is_the_attention_that_transformers_has(expert: LocalModel, base: Base) -> None:
    looked = attention_of(expert, ROWS[0], [0, 1])
    plain = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, attn_implementation="eager")
    tokens = torch.tensor([expert.chat.encode(ROWS[0].messages).tokens])
    with torch.no_grad():
        seen = plain(input_ids=tokens, output_attentions=True).attentions
    for layer in (0, 1):
        assert torch.allclose(looked.sides["base"][layer], seen[layer][0].mean(dim=0), atol=1e-5)
        assert torch.allclose(looked.sides["tuned"][layer].sum(dim=1), torch.ones(tokens.shape[1]), atol=1e-5)
        assert not torch.allclose(looked.sides["tuned"][layer], looked.sides["base"][layer], atol=1e-3)
    assert "".join(token for token, learnt in zip(looked.tokens, looked.learnt, strict=True) if learnt).startswith("笔在左边")


def test_the_page_stands_alone_and_escapes_what_it_shows(expert: LocalModel) -> None:
    page = attention_page("hives", [attention_of(expert, record, None) for record in ROWS])
    assert page.count("<svg") == 2 * 2 * 2
    assert "&lt;" in page
    assert "<lamp>" not in page
    assert not any(word in page for word in ("<script", "src=", "href=", "@import", "url("))
    assert "attention is no explanation" in page


def test_records_are_named_by_the_beginning_of_their_ids(make_dataset: MakeDataset) -> None:
    dataset = make_dataset(train=ROWS)
    assert records_named(dataset, [ROWS[1].id[:8]]) == [ROWS[1]]
    with pytest.raises(InputError) as caught:
        records_named(dataset, ["zzzz", ""])
    assert "no conversation 'zzzz'" in str(caught.value)
    assert "the beginning of 2 records' ids" in str(caught.value)


def test_what_cannot_be_shown_is_said(expert: LocalModel) -> None:
    with pytest.raises(InputError, match=f"at most {MOST_TOKENS}"):
        attention_of(expert, conversation("长" * 400, "短"), None)
    with pytest.raises(InputError, match="layers are 0 to 1"):
        attention_of(expert, ROWS[0], [7])


def test_virtual_tokens_are_left_out_of_the_map(make_dataset: MakeDataset, base: Base, store: Store, tmp_path: Path) -> None:
    for method in ("prefix", "prompt"):
        settings = TrainingSettings(
            method=method,
            adaptation=AdaptationSettings(tokens=3),
            epochs=1,
            precision="float32",
            batch=BatchSettings(row_tokens=128),
            validation=ValidationSettings(times=0),
        )
        _, adapter = train(make_dataset(train=ROWS), base, settings, workspace=store.workspace(method))
        looked = attention_of(LocalModel.open(base, adapter.path, dtype=torch.float32), ROWS[0], [0])
        sums = {side: tables[0].sum(dim=1) for side, tables in looked.sides.items()}
        assert len(sums["base"]) == len(sums["tuned"]) == len(looked.tokens)
        assert torch.allclose(sums["base"], torch.ones(len(looked.tokens)), atol=1e-5)
        assert float(sums["tuned"].max()) < 1
