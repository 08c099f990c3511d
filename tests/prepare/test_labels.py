"""Labels: contradictions, suspects that were planted, balance and its plan. No label is changed."""

import json
import random

import numpy as np
import pytest

from corpus_of_prepare import chat, row
from metier.prepare.labels import LabelSettings, class_balance, contradictions, examine, label_facts, leaving, plan, write_review
from metier.prepare.labels.features import analyse, judged_text, tabular
from metier.prepare.labels.suspects import held_out_probabilities
from metier.records import Drop

ON = LabelSettings(suspects=True)
SAID = {
    "winter": ["蜂群越冬保温", "冬天包装蜂箱", "越冬饲料不足", "the cluster in winter", "winter losses of colonies"],
    "swarm": ["分蜂热怎么控制", "分蜂前造王台", "回收分蜂团", "a swarm hangs in the tree", "prevent swarming in May"],
    "mites": ["蜂螨怎么防治", "治螨用什么药", "螨害严重的蜂群", "treat the mites with acid", "count varroa mites"],
}


def corpus(count=60):
    rng = random.Random(0)
    return [
        row(number, text=f"{rng.choice(SAID[label])} {rng.choice(SAID[label])} {number}", label=label, task="topic")
        for number in range(count)
        for label in [sorted(SAID)[number % 3]]
    ]


def test_features_are_runs_of_han_letters_and_words_with_their_neighbours():
    assert analyse("蜂王 Queen bee") == ["蜂", "王", "蜂王", "queen", "bee", "queen bee"]
    assert judged_text(chat(1, "问", "答")) == "问"
    assert judged_text(row(1, metadata={"b": "二", "a": "一", "n": 3})) == "一\n二"
    assert judged_text(row(1, metadata={"b": "二", "a": "一"}), fields=("b",)) == "二"
    assert tabular(row(1, metadata={"age": "30", "sex": "male"}))
    assert not tabular(row(1, metadata={"text": "长" * 60}))


def test_one_text_with_two_labels_is_a_contradiction_whatever_its_case_and_blanks():
    records = [
        row(1, text="Winter  Losses", label="a"),
        row(2, text="winter losses", label="b"),
        row(3, text="winter losses!", label="b"),
        row(4, text="越冬", label="a"),
        row(5, text="越冬", label="a"),
        row(6, text="winter losses", label="c", task="another"),
    ]
    found = contradictions(records)
    assert {suspect.record_id for suspect in found} == {records[0].id, records[1].id}
    assert {suspect.reason for suspect in found} == {"the same text stands with the labels 'a' (1), 'b' (1)"}


def test_planted_errors_are_found_and_named_with_their_confidence():
    records = corpus()
    wrong = [records[4], records[13], records[32]]
    labels = {record.id: next(label for label in sorted(SAID) if label != record.label) for record in wrong}
    given = [row(int(record.source.position.split()[1]), text=record.text, label=labels.get(record.id, record.label), task="topic") for record in records]
    planted = {given[place].id for place in (4, 13, 32)}
    (found,) = examine(given, ON)
    assert planted <= {suspect.record_id for suspect in found.suspects}
    assert len(found.suspects) <= 8
    worst = found.suspects[0]
    assert worst.record_id in planted
    assert worst.suggested != worst.label
    assert worst.confidence < worst.suggested_confidence
    assert worst.reason == f"a model that did not see it gives {worst.suggested!r} {worst.suggested_confidence:.2f} and {worst.label!r} {worst.confidence:.2f}"
    assert found.accuracy > 0.85


def test_the_same_records_in_another_order_give_the_same_suspects():
    records = corpus()
    records[5] = row(5, text=records[5].text, label="winter" if records[5].label != "winter" else "mites", task="topic")
    first, second = (examine(given, ON)[0] for given in (records, list(records)))
    assert first == second


def test_a_class_that_is_alone_or_too_rare_is_said_not_judged():
    (alone,) = examine([row(number, text=f"文本{number}", label="积极", task="t") for number in range(71)], ON)
    assert alone.suspects == ()
    assert alone.not_judged == ("all 71 records have the label '积极': there is nothing to compare it with",)
    (found,) = examine([*corpus(), row(99, text="蜂王浆", label="rare", task="topic")], ON)
    assert found.not_judged == ("the label 'rare' (1 records, 1 groups) is too rare to be judged",)


def test_a_class_that_no_other_fold_holds_is_not_judged():
    labels, matrix = np.asarray([0, 1, 2] * 6), np.eye(18, dtype=np.float32)
    groups = ["one keeper" if label == 2 else str(number) for number, label in enumerate(labels)]
    probabilities = held_out_probabilities(matrix, labels, groups, folds=3)
    assert np.isnan(probabilities[labels == 2]).all()
    assert np.allclose(probabilities[labels < 2].sum(axis=1), 1)


def test_records_of_one_group_are_never_judged_by_a_model_that_saw_the_group():
    # Every text names its group, and all labels are drawn: only a model that saw the group can be right.
    rng = random.Random(1)
    label_of = {group: rng.choice("ab") for group in range(30)}
    records = [row(number, text=f"group{number % 30}", label=label_of[number % 30], group=str(number % 30), task="t") for number in range(150)]
    (found,) = examine(records, ON)
    assert found.accuracy < 0.75
    (leaked,) = examine([row(number, text=f"group{number % 30} x{number}", label=label_of[number % 30], task="t") for number in range(150)], ON)
    assert leaked.accuracy > 0.95


def test_rows_of_a_table_are_judged_by_their_columns():
    records = [
        row(number, metadata={"frames": number % 20, "place": "hill" if number % 20 > 9 else "valley"}, label="strong" if number % 20 > 9 else "weak", task="t")
        for number in range(80)
    ]
    records[3] = row(3, metadata={"frames": 3, "place": "valley"}, label="strong", task="t")
    (found,) = examine(records, ON)
    assert [suspect.record_id for suspect in found.suspects] == [records[3].id]


def test_suspects_go_to_a_review_file_and_leave_only_when_asked(tmp_path):
    records = [row(1, text="越冬", label="a"), row(2, text="越冬", label="b"), row(3, text="分蜂", label="b")]
    found = contradictions(records)
    assert write_review(tmp_path / "review.jsonl", found, records) == 2
    lines = [json.loads(line) for line in (tmp_path / "review.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(line["text"], line["label"], line["decision"], line["source"]) for line in lines} == {
        ("越冬", "a", None, "a.jsonl, line 1"),
        ("越冬", "b", None, "a.jsonl, line 2"),
    }
    left = list(leaving(records, found))
    assert [item.reason if isinstance(item, Drop) else item.id for item in left] == ["contradictory_labels", "contradictory_labels", records[2].id]


def classes(**counts):
    return [row(number, text=f"{label}{number}", label=label, task="t") for label, count in counts.items() for number in range(count)]


def test_balance_is_counted_and_what_cannot_be_learnt_is_said():
    (found,) = class_balance(classes(a=71))
    assert found.remarks == ("all 71 records have the label 'a': nothing can be learnt or measured from it",)
    (found,) = class_balance(classes(a=96, b=4))
    assert found.ratio == 24
    assert found.evenness == pytest.approx(0.2423, abs=1e-4)
    assert found.remarks == ("96 of 100 records have the label 'a': always saying it is right 96% of the time", "1 classes have fewer than 5 records: 'b'")
    assert class_balance([row(1, text="x")]) == ()


def test_the_plan_gives_every_class_its_weight():
    records = classes(a=60, b=30, c=10)
    weights = plan(records, "weights")
    sums = {label: sum(weights[record.id] for record in records if record.label == label) for label in "abc"}
    assert sums == pytest.approx(dict.fromkeys("abc", 100 / 3))
    down = plan(records, "down", most=2)
    assert {label: sum(down[record.id] for record in records if record.label == label) for label in "abc"} == {"a": 20, "b": 20, "c": 10}
    assert plan(records[::-1], "down", most=2) == down
    assert plan(records, "down", most=2, seed=1) != down
    over = plan(records, "over", most=4)
    assert {label: {over[record.id] for record in records if record.label == label} for label in "abc"} == {"a": {1.0}, "b": {2.0}, "c": {4.0}}
    assert plan(records, "none") == {}


def test_the_facts_say_whether_anybody_looked():
    records = corpus()
    facts = label_facts(class_balance(records), 0, None)
    assert (facts["examined"], facts["balance"][0]["counts"]) == (None, {"mites": 20, "swarm": 20, "winter": 20})
    examined = label_facts(class_balance(records), 0, examine(records, ON))["examined"]
    assert examined[0]["records"] == 60
