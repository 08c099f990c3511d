"""Vectors and likelihoods of plain text: a batch gives what each text gives alone."""

import math

import numpy as np
import pytest
import torch

from metier.errors import ModelError
from metier.models import Base, LocalModel, SentenceEncoder, mean_states, text_likelihoods
from metier.models.attention import Packed

TEXTS = ["Bees live in hives.", "", "蜜蜂住在蜂箱里。", "The queen lays eggs. " * 20]


@pytest.fixture(scope="module")
def model(base: Base):
    return LocalModel.open(base, dtype=torch.float32)


def test_vectors_of_a_batch_are_those_of_single_texts(model):
    together = mean_states(model, TEXTS)
    assert (together.shape, together.dtype) == ((4, 64), np.float32)
    assert not together[1].any()
    for row, text in enumerate(TEXTS):
        assert np.allclose(together[row], mean_states(model, [text])[0], atol=1e-4)
    assert not np.allclose(mean_states(model, TEXTS, depth=1.0)[0], together[0], atol=1e-2)


def test_likelihoods_are_those_of_the_plain_model(model):
    found = text_likelihoods(model, TEXTS)
    tokenizer = model.chat.tokenizer
    for text, one in zip(TEXTS, found, strict=True):
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
        states = model.hidden(ids[0].tolist(), range(ids.shape[1]), Packed([ids.shape[1]]))
        logits = (states.detach() @ model.head.T).log_softmax(-1)
        expected = sum(float(logits[place, ids[0, place + 1]]) for place in range(ids.shape[1] - 1))
        assert one.tokens == ids.shape[1] - 1
        assert one.log_probability == pytest.approx(expected, abs=1e-2)
    assert found[1].log_probability == 0
    assert math.isfinite(found[3].log_probability)


def test_a_text_beyond_the_bound_counts_up_to_it(model):
    assert text_likelihoods(model, TEXTS, maximum_tokens=5)[3].tokens == 5
    assert np.allclose(mean_states(model, [TEXTS[3]], maximum_tokens=8), mean_states(model, [TEXTS[3][:200]], maximum_tokens=8))


def test_an_encoder_folder_gives_one_vector_a_text_whatever_the_batch(base: Base, tmp_path):
    from transformers import AutoTokenizer, BertConfig, BertModel

    folder = tmp_path / "encoder"
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=800, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    BertModel(config).save_pretrained(folder)
    encoder = SentenceEncoder(folder)
    together = encoder.encode(TEXTS[:3])
    assert (together.shape, together.dtype) == ((3, 32), np.float32)
    assert not together[1].any()
    assert np.allclose(together[2], encoder.encode([TEXTS[2]])[0], atol=1e-5)


def test_a_folder_that_is_no_encoder_is_said_to_be_none(tmp_path):
    with pytest.raises(ModelError, match=r"is no encoder\n    -> give a folder with config.json"):
        SentenceEncoder(tmp_path)
