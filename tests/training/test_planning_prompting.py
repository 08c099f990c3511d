"""Would prompting do: families, the three ways of asking, intervals, verdicts; and base models beside each other."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from conftest import MakeDataset, conversation
from metier.errors import InputError
from metier.models import Base, LocalModel
from metier.prepare.generate.retrieval import Index
from metier.records import Message, Record, identify
from metier.testing import tiny_base
from metier.training.planning.bases import compare_bases, find_bases
from metier.training.planning.intervals import share_interval
from metier.training.planning.prompting import Measured, conclude, families, measure_prompting, verdict

COLOURS = {"樱桃": "红", "柠檬": "黄", "青草": "绿", "天空": "蓝"}


def searcher(texts: Any) -> Any:
    index = Index(texts)
    return lambda query, count: [number for number, _ in index.search(query, count)]


def closed(start: int, count: int) -> list[Record]:
    things = list(COLOURS.items())
    return [conversation(f"第{start + n}个：{things[n % 4][0]}是什么颜色？", things[n % 4][1], task="colour", language="zh") for n in range(count)]


def free(start: int, count: int) -> list[Record]:
    return [conversation(f"What is {start + n}?", f"It is the number {start + n}, of course.", task="number") for n in range(count)]


TRAIN, ASKED = [*closed(0, 40), *free(0, 30)], [*closed(100, 12), *free(100, 8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    return LocalModel.open(tiny_base(tmp_path_factory.mktemp("prompting") / "tiny"))


def test_families_are_tasks_and_languages_and_closed_sets_of_answers_are_told() -> None:
    colour, number = families(TRAIN, ASKED, limit=5)
    assert (colour.name, len(colour.items), colour.choices) == ("colour zh", 5, ("红", "绿", "蓝", "黄"))
    assert (number.name, number.choices) == ("number en", ())
    assert colour.items == tuple(sorted(ASKED[:12], key=lambda record: record.id)[:5])
    few = families(closed(0, 8), ASKED, limit=5)
    assert [family.choices for family in few] == [()], "eight records of four answers tell nothing of a closed set"


def test_a_choice_is_scored_as_the_model_ranks_it_and_the_nearest_answer_needs_no_model(model: LocalModel) -> None:
    colour, _ = families(TRAIN, ASKED, limit=12)
    found = measure_prompting(model, colour, searcher, shots=3)
    alone = model.choose([record.messages[:1] for record in colour.items], [colour.choices] * 12)
    right = sum(
        colour.choices[max(range(4), key=lambda n, row=row: row[n].log_probability)] == record.messages[1].content
        for row, record in zip(alone, colour.items, strict=True)
    )
    assert found.scores["alone"] == share_interval(right, 12)
    assert found.scores["copied"].value == 1.0, "the nearest question is about the same thing"
    assert found.chance == 0.25
    assert found.shown == {"alone": 0.0, "examples": 3.0, "nearest": 3.0}
    assert set(found.differences) == {"examples", "nearest"}
    difference = found.differences["nearest"]
    assert difference.value == pytest.approx(found.scores["nearest"].value - found.scores["alone"].value)


def test_free_answers_are_measured_in_bits_a_character(model: LocalModel) -> None:
    _, number = families(TRAIN, ASKED, limit=8)
    found = measure_prompting(model, number, searcher, shots=2)
    answers = [record.messages[1].content for record in number.items]
    bits = [-row[0].log_probability / math.log(2) for row in model.choose([record.messages[:1] for record in number.items], [[text] for text in answers])]
    assert found.scores["alone"].value == pytest.approx(sum(bits) / sum(map(len, answers)))
    assert found.scores["alone"].low < found.scores["alone"].value < found.scores["alone"].high
    assert found.chance is None
    assert verdict(found, 0.8)[0] == "not comparable"


def test_examples_that_do_not_fit_into_the_context_are_left_out_and_counted(model: LocalModel) -> None:
    sentence = "蜂箱用木头做成。"
    tokens = len(model.chat.tokenizer(sentence, add_special_tokens=False)["input_ids"])
    long = [conversation(f"{number} " + sentence * (450 // tokens), "是" if number % 2 else "否", task="long", language="zh") for number in range(12)]
    (family,) = families(long[:10], long[10:], limit=2)
    found = measure_prompting(model, family, searcher, shots=4)
    assert 0 < found.shown["examples"] < 4
    assert found.shown["nearest"] < 4


def test_a_system_message_stays_first(model: LocalModel) -> None:
    def strict(number: int) -> Record:
        messages = (Message("system", "Be brief."), Message("user", f"Is {number} even?"), Message("assistant", "yes" if number % 2 == 0 else "no", learn=True))
        record = Record(id="", messages=messages, task="even")
        return Record(id=identify(record), messages=messages, task="even", language="en")

    (family,) = families([strict(number) for number in range(20)], [strict(number) for number in range(50, 54)], limit=4)
    seen: list[Any] = []
    choose = model.choose

    class Listening(LocalModel):
        def choose(self, prompts: Any, choices: Any, **options: Any) -> Any:
            seen.extend(prompts)
            return choose(prompts, choices, **options)

    listening = Listening(model.model, model.chat)
    measure_prompting(listening, family, searcher, shots=2)
    assert {prompt[0] for prompt in seen} == {Message("system", "Be brief.")}
    assert sorted({len(prompt) for prompt in seen}) == [2, 6]


def measured(hits: dict[str, int], items: int) -> Measured:
    return Measured("a task", "choice", items, {name: share_interval(count, items) for name, count in hits.items()})


def test_the_verdict_needs_a_bound_not_a_value() -> None:
    assert verdict(measured({"alone": 10, "examples": 39, "nearest": 20}, 40), 0.8) == ("would do", "examples")
    assert verdict(measured({"alone": 10, "examples": 35, "nearest": 20}, 40), 0.8) == ("cannot be told", "examples")
    assert verdict(measured({"alone": 10, "examples": 12, "nearest": 20}, 40), 0.8) == ("would not do", "nearest")
    # Chosen as the best of many ways, the same figure says less.
    assert verdict(measured({"examples": 37}, 40), 0.8)[0] == "would do"
    assert verdict(measured(dict.fromkeys("abcdefgh", 37), 40), 0.8)[0] == "cannot be told"


def test_the_conclusion_names_the_tasks() -> None:
    rows = [
        {"family": name, "verdict": said, "kind": "choice", "differences": {}}
        for name, said in (("a", "would do"), ("b", "would not do"), ("c", "cannot be told"))
    ]
    done, undone, open_ = conclude(rows, 0.8)
    assert "on a: there, training is not needed" in done
    assert "below 0.80 on b" in undone
    assert "On c the sample is too small" in open_


def test_base_models_are_ranked_by_what_they_make_of_the_data(make_dataset: MakeDataset, tmp_path: Path) -> None:
    dataset = make_dataset(train=TRAIN, validation=ASKED)
    tiny_base(tmp_path / "models" / "one")
    tiny_base(tmp_path / "models" / "two", hidden=32, seed=3)
    (tmp_path / "models" / "two" / "README.md").unlink()
    rows = compare_bases(find_bases([tmp_path / "models"]), dataset, searcher, items=6, shots=2)
    assert [Path(row["name"]).name for row in rows] in (["one", "two"], ["two", "one"])
    assert rows[0]["bits_a_character"]["value"] < rows[1]["bits_a_character"]["value"]
    by_name = {Path(row["name"]).name: row for row in rows}
    assert (by_name["one"]["licence"], by_name["two"]["licence"]) == ("cc0-1.0", "unknown")
    assert by_name["one"]["parameters"] > by_name["two"]["parameters"]
    for row in rows:
        assert row["few_shot_items"] == 6
        assert set(row["tokens_a_character"]) == {"zh", "en"}
        assert 0 < row["tokens_a_character"]["en"] < 2


def test_folders_without_a_model_and_data_without_validation_are_refused(make_dataset: MakeDataset, base: Base, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty holds no base model(.|\n)*gone holds no base model"):
        find_bases([tmp_path / "empty", base.folder, tmp_path / "gone"])
    with pytest.raises(InputError, match=r"no validation record(.|\n)*prepare.split.validation"):
        compare_bases([base], make_dataset(train=TRAIN), searcher)
