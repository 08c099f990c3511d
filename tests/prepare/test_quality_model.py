"""Quality with a model: likelihoods kept on disk and asked once, perplexity in fluency, the model's own states as encoder."""

import json
import math

import numpy as np
import pytest

from corpus_of_prepare import chat, row
from metier.errors import InputError, ModelError
from metier.models import Base, LocalModel
from metier.prepare.quality import BaseEncoder, Means, QualitySettings, assess, exchange, means_for
from metier.prepare.quality.likelihood import Asked, Likely, likely

ON = QualitySettings(model="base")


@pytest.fixture(scope="module")
def model(base: Base):
    return LocalModel.open(base)


def records(count=20):
    return [chat(number, f"What is hive number {number} for?", f"Hive number {number} is for bees and honey.", language="en") for number in range(count)]


def test_an_answer_has_a_likelihood_with_its_question_and_without(model):
    found = likely(model, [exchange(records(1)[0]), exchange(row(1, text="Bees live in hives.")), exchange(row(2, text=""))])
    assert found[0].given < 0
    assert found[0].alone < 0
    assert found[0].gain == pytest.approx(found[0].given - found[0].alone)
    assert (found[1].given, found[1].perplexity) == (None, pytest.approx(math.exp(-found[1].alone)))
    assert found[2] == Likely(None, None, 0)


def test_a_batch_gives_what_each_gives_alone(model):
    items = [exchange(record) for record in records(5)]
    together = likely(model, items)
    for item, found in zip(items, together, strict=True):
        (alone,) = likely(model, [item])
        assert alone.given == pytest.approx(found.given, rel=1e-3)
        assert alone.alone == pytest.approx(found.alone, rel=1e-3)


class Counted:
    """A model that counts what it is asked."""

    def __init__(self, model):
        self.inner, self.asked = model, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def choose(self, prompts, choices):
        self.asked += len(prompts)
        return self.inner.choose(prompts, choices)


def test_what_was_asked_is_kept_and_a_torn_line_is_asked_again(model, tmp_path):
    path = tmp_path / "likelihoods.jsonl"
    items = [exchange(record) for record in records(6)]
    counted = Counted(model)
    first = Asked(counted, path, salt="m").ask(items[:4])
    assert counted.asked == 4
    with path.open("ab") as stream:
        stream.write(b'{"key": "torn')
    again = Asked(counted, path, salt="m").ask(items)
    assert counted.asked == 6
    assert again[:4] == first
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 6
    Asked(counted, path, salt="another model").ask(items[:1])
    assert counted.asked == 7


def test_an_interrupted_assessment_goes_on_where_it_was(model, tmp_path):
    counted = Counted(model)
    means = Means(model=counted, model_digest="m")
    half = assess(records(), QualitySettings(model="base", batch=4), means, folder=tmp_path)
    next(half)
    half.close()
    before = counted.asked
    found = list(assess(records(), QualitySettings(model="base", batch=4), means, folder=tmp_path))
    assert len(found) == 20
    assert counted.asked == before, "all of it was asked while calibrating"
    assert [item.score for item in found] == [item.score for item in assess(records(), QualitySettings(model="base"), Means(model=model, model_digest="m"))]


def test_a_garbled_answer_loses_fluency_and_says_by_how_much(model):
    garbled = chat(99, "What is hive number 99 for?", "#Zq}~ ^x|w@ k{]` v\\j% Q^=& zz*+ <;'? ~~~ X!X %%% qj }{", language="en")
    found = list(assess([*records(), garbled], ON, Means(model=model, model_digest="m")))
    assert min(item.dimensions["fluency"].value for item in found[:-1]) > found[-1].dimensions["fluency"].value
    assert "perplexity" in found[0].dimensions["fluency"].how


def test_hidden_states_are_an_encoder(model):
    vectors = BaseEncoder(model).encode(["Bees live in hives.", "", "Bees live in hives."])
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, 64))
    assert not vectors[1].any()
    assert np.allclose(vectors[0], vectors[2], atol=1e-4)
    (first, *_) = assess(records(), ON, Means(encoder=BaseEncoder(model)))
    assert first.dimensions["relevance"].how == "base"


def test_the_settings_load_what_they_ask_for(base: Base, tmp_path):
    (tmp_path / "reference.md").write_text("Bees live in hives.", encoding="utf-8")
    found = means_for(QualitySettings(model="base", encoder="base", knowledge="reference.md"), root=tmp_path, base=base)
    assert (found.model_digest, found.encoder.name, found.knowledge.passages[0].text) == (base.digest, "base", "Bees live in hives.")
    plain = means_for(QualitySettings(), root=tmp_path)
    assert (plain.encoder, plain.model, plain.knowledge) == (None, None, None)
    with pytest.raises(InputError, match="needs the project's base model"):
        means_for(QualitySettings(model="base"), root=tmp_path)
    with pytest.raises(ModelError, match="is no encoder"):
        means_for(QualitySettings(encoder="nowhere"), root=tmp_path)


def test_without_an_encoder_relevance_is_what_the_question_tells_of_the_answer(model):
    (first, *_) = assess(records(), QualitySettings(model="base", encoder="none"), Means(model=model, model_digest="m"))
    assert first.dimensions["relevance"].how == "base model"
    assert "nats a token of the answer" in first.dimensions["relevance"].why[0]
    (plain, *_) = assess(records(), QualitySettings(encoder="none"))
    assert plain.dimensions["relevance"].value is None
