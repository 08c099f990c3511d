"""How far records are from what the base model knows, and the stages that are proposed for it."""

from __future__ import annotations

import json
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from conftest import MakeDataset, conversation
from metier.models import Base, LocalModel, text_likelihoods
from metier.records import Record, identify
from metier.training import TrainingSettings
from metier.training.planning.gap import Gap, measure_gaps, propose_stages
from metier.training.reading import first_of_each

ZH, EN = "第三条 出租人应当在交付前检查锅炉，并记录压力。", "The landlord checks the boiler before handing over and writes the pressure down."


def text(content: str, language: str, **more: Any) -> Record:
    made = Record(id="", text=content, task="statutes", domain="letting", language=language, **more)
    return replace(made, id=identify(made))


def talk(question: str, answer: str, language: str) -> Record:
    return replace(conversation(question, answer, task="advice", language=language), domain="letting")


@pytest.fixture(scope="module")
def model(base: Base) -> LocalModel:
    return LocalModel.open(base)


def test_a_group_is_measured_against_prose_in_its_own_languages(make_dataset: MakeDataset, model: LocalModel) -> None:
    rows = [text(ZH, "zh"), text(EN, "en"), talk("谁检查锅炉？", "出租人", "zh"), text("Le bailleur vérifie la chaudière.", "fr")]
    dataset = make_dataset(train=rows, validation=rows)
    answers, texts = measure_gaps(dataset, lambda: model, limit=8)
    assert (texts.task, texts.kind, texts.records) == ("statutes", "texts", 2), "there is no prose in the third language"
    assert (answers.task, answers.kind, answers.records) == ("advice", "answers", 1)
    bits = [-item.log_probability / math.log(2) for item in text_likelihoods(model, [ZH, EN])]
    assert texts.bits == pytest.approx(sum(bits) / (len(ZH) + len(EN)))
    ((said,),) = model.choose([rows[2].messages[:1]], [("出租人",)])
    assert answers.bits == pytest.approx(-said.log_probability / math.log(2) / 3)
    (alone,) = measure_gaps(make_dataset(train=rows, validation=[rows[0]]), lambda: model, limit=8)
    assert alone.prose == pytest.approx(answers.prose), "both are Chinese alone"
    (other,) = measure_gaps(make_dataset(train=rows, validation=[rows[1]]), lambda: model, limit=8)
    assert texts.prose == pytest.approx((len(ZH) * alone.prose + len(EN) * other.prose) / (len(ZH) + len(EN)))


def test_at_most_so_many_records_of_a_group_are_read_and_none_opens_no_model(make_dataset: MakeDataset, model: LocalModel) -> None:
    rows = [text(f"{EN} {number}", "en") for number in range(6)]
    (found,) = measure_gaps(make_dataset(train=rows, validation=rows), lambda: model, limit=4)
    assert found.records == 4

    def never() -> LocalModel:
        raise AssertionError

    assert measure_gaps(make_dataset(train=rows, validation=[text("Bonjour", "fr")]), never, limit=4) == []


def gap(task: str, kind: Any, share: float, domain: str = "letting") -> Gap:
    return Gap(task, domain, kind, 8, 2 * (1 + share), 2.0)


def test_the_share_says_how_far_it_is() -> None:
    assert [gap("a", "texts", share).level for share in (-0.3, 0.05, 0.2, 0.6)] == ["near", "near", "middling", "far"]
    assert gap("a", "texts", 0.25).share == pytest.approx(0.25)


def test_stages_go_from_texts_to_answers_and_from_near_to_far_and_are_settings() -> None:
    gaps = [gap("advice", "answers", 0.9), gap("letters", "answers", 0.0), gap("guides", "texts", 0.7), gap("statutes", "texts", 0.8)]
    proposed = propose_stages(gaps)
    assert proposed is not None
    assert [(stage["name"], stage["records"]["task"], stage["epochs"]) for stage in proposed["stages"]] == [
        ("texts, far", ["guides", "statutes"], 2),
        ("answers, near", ["letters"], 1),
        ("answers, far", ["advice"], 3),
    ]
    assert proposed["replay"] == {"share": 0.1, "written": 100}
    settings = TrainingSettings.model_validate_json(json.dumps(proposed))
    assert [stage.epochs for stage in settings.stages] == [2, 1, 3]


def test_records_to_replay_and_several_domains_are_named_and_one_stage_is_none() -> None:
    proposed = propose_stages([gap("a", "texts", 0.9), gap("replay", "answers", 0.0, "general")])
    assert proposed is not None
    assert proposed["replay"] == {"share": 0.1}
    assert proposed["stages"][0]["records"] == {"task": ["a"], "domain": ["letting"]}
    assert "replay" not in (propose_stages([gap("a", "texts", 0.0), gap("b", "answers", 0.0)]) or {})
    assert propose_stages([gap("a", "answers", 0.9), gap("b", "answers", 0.8)]) is None
    assert propose_stages([]) is None


def test_a_sample_is_the_first_by_id_of_each_group_and_little_is_held() -> None:
    records = [text(f"{EN} {number}", ("en", "zh")[number % 3 == 0]) for number in range(300)]
    alive: weakref.WeakSet[_Held] = weakref.WeakSet()
    most = 0

    def stream() -> Iterator[Any]:
        nonlocal most
        for record in records:
            held = _Held(record.id, record.language)
            alive.add(held)
            yield held
            most = max(most, len(alive))

    found: dict[Any, list[Any]] = first_of_each(stream(), lambda record: None if record.language == "fr" else record.language, 4)
    for language in ("en", "zh"):
        assert [item.id for item in found[language]] == sorted(record.id for record in records if record.language == language)[:4]
    assert most <= 2 * 4 * 2 + 1


class _Held:
    def __init__(self, name: str, language: str | None) -> None:
        self.id, self.language = name, language
