"""Too long records are split at borders or leave with a reason; nothing is lost between the parts."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_of_prepare import chat, row
from metier.models import Base, Chat, load_tokenizer
from metier.prepare.lengths import LengthSettings, fit, fitted, length_report, part_of, token_counter
from metier.records import Drop, Message, Span

SPLIT = LengthSettings(over="split")


def letters(record):
    """Count a token a character: makes every border visible."""
    return len(record.text) + sum(len(message.content) for message in record.messages)


def parts(record, maximum, chosen=SPLIT):
    return fit(record, chosen, letters, maximum=maximum)


def test_a_record_that_fits_stays_as_it_is():
    record = row(1, text="短。")
    assert parts(record, 10) == [(record, ())]


def test_text_is_split_at_sentences_and_nothing_is_lost():
    text = "第一句话在这里。第二句话也在这里。第三句。The fourth one is English. Fifth."
    made = parts(row(1, text=text), 30)
    assert "".join(part.text for part, _ in made) == text
    assert [part.text for part, _ in made] == ["第一句话在这里。第二句话也在这里。第三句。", "The fourth one is English. ", "Fifth."]
    assert [notes for _, notes in made] == [("lengths:part=1/3@0-21",), ("lengths:part=2/3@21-48",), ("lengths:part=3/3@48-54",)]
    assert part_of(made[1][1][0]) == (2, 3)


def test_articles_stay_whole_where_they_fit():
    text = "第一条 甲甲甲。乙乙乙。\n第二条 丙丙丙。丁丁丁。\n第三条 戊。"
    made = parts(row(1, text=text), 16)
    assert [part.text for part, _ in made] == ["第一条 甲甲甲。乙乙乙。\n", "第二条 丙丙丙。丁丁丁。\n", "第三条 戊。"]


def test_parts_name_their_parent_share_a_group_and_have_ids_of_their_own():
    record = row(1, text="甲甲甲。乙乙乙。丙丙丙。", label="l", subject="s", metadata={"k": 1})
    made = [part for part, _ in parts(record, 5)]
    assert {part.parents for part in made} == {(record.id,)}
    assert {part.group for part in made} == {record.id}
    assert len({part.id for part in made} | {record.id}) == 4
    assert {(part.label, part.subject, part.metadata["k"]) for part in made} == {("l", "s", 1)}
    assert [part.metadata["part"] for part in made] == ["1/3@0-4", "2/3@4-8", "3/3@8-12"]
    assert {part.group for part, _ in parts(dataclasses.replace(record, group="g"), 5)} == {"g"}


def test_a_long_sentence_is_split_at_clauses_and_one_without_a_border_leaves():
    text = "甲甲甲甲，乙乙乙乙，丙丙丙丙。"
    assert [part.text for part, _ in parts(row(1, text=text), 6)] == ["甲甲甲甲，", "乙乙乙乙，", "丙丙丙丙。"]
    (dropped,) = parts(row(1, text="甲" * 20), 6)
    assert (dropped.step, dropped.reason) == ("lengths", "no_border:20>6")
    assert "甲" * 20 in dropped.content


def test_spans_move_with_their_part_and_are_never_cut():
    text = "张三。李四到了。王五走了。"
    record = row(1, text=text, spans=(Span(0, 2, "PERSON"), Span(2, 5, "X"), Span(8, 10, "PERSON")))
    made = [part for part, _ in parts(record, 8)]
    assert [part.text for part in made] == ["张三。李四到了。", "王五走了。"]
    assert [(span.start, span.end, span.text) for part in made for span in part.spans] == [(0, 2, "张三"), (2, 5, "。李四"), (0, 2, "王五")]


@settings(max_examples=60)
@given(st.text(alphabet="甲乙。，！？a b.\n第一条 ", max_size=200), st.integers(4, 40))
def test_parts_together_are_the_text_and_none_is_too_long(text, maximum):
    record = row(1, text=text)
    made = parts(record, maximum)
    if isinstance(made[0], Drop):
        assert made[0].reason.startswith(("no_border", "too_long"))
        return
    assert "".join(part.text for part, _ in made) == text
    assert all(len(part.text) <= maximum for part, _ in made)


def talk(*turns, system=None):
    messages = [Message("system", system)] if system else []
    for question, answer in turns:
        messages += [Message("user", question), Message("assistant", answer, True)]
    return row(1, messages=tuple(messages))


def test_conversations_are_split_between_exchanges_with_the_system_in_each():
    record = talk(("问一", "答一"), ("问二", "答二"), ("问三", "答三"), system="令")
    made = parts(record, 9)
    assert [[message.content for message in part.messages] for part, _ in made] == [["令", "问一", "答一", "问二", "答二"], ["令", "问三", "答三"]]
    assert [notes for _, notes in made] == [("lengths:part=1/2@turns1-5",), ("lengths:part=2/2@turns5-7",)]


def test_an_answer_is_never_cut_it_leaves_with_its_question():
    record = talk(("问一", "答一"), ("问二", "答" * 30), ("问三", "答三"))
    first, gone, last = parts(record, 10)
    assert [message.content for message in first[0].messages] == ["问一", "答一"]
    assert (gone.step, gone.reason) == ("lengths", "answer_too_long:32>10")
    assert [message.content for message in last[0].messages] == ["问三", "答三"]
    (only,) = parts(talk(("问", "答" * 30)), 10)
    assert only.reason == "answer_too_long:31>10"


def test_a_part_without_anything_to_learn_leaves():
    messages = (Message("user", "问一"), Message("assistant", "答一"), Message("user", "问二"), Message("assistant", "答二", True))
    first, second = parts(row(1, messages=messages), 5)
    assert first.reason == "nothing_to_learn"
    assert second[0].messages == messages[2:]


def test_drop_keep_and_the_least_length():
    record = row(1, text="甲。乙乙乙乙乙。")
    assert parts(record, 5, LengthSettings(over="drop"))[0].reason == "too_long:8>5"
    assert parts(record, 5, LengthSettings(over="keep")) == [(record, ())]
    assert parts(record, 50, LengthSettings(minimum_tokens=20))[0].reason == "too_short:8<20"
    assert parts(record, 99, LengthSettings(over="drop", maximum_tokens=5))[0].reason == "too_long:8>5"


def test_the_step_yields_parts_and_drops_in_order():
    step = fitted(SPLIT, letters, maximum=4)
    found = list(step([row(1, text="甲。"), row(2, text="甲甲甲。乙。"), row(3, text="甲" * 9)]))
    assert [item.reason if isinstance(item, Drop) else item.text for item in found] == ["甲。", "甲甲甲。", "乙。", "no_border:9>4"]


def test_tokens_are_counted_as_training_reads_them(base: Base):
    chat_ = Chat(load_tokenizer(base))
    count = token_counter(chat_)
    record = chat(1, "What is a hive?", "A home of bees.")
    assert count(record) == len(chat_.encode(record.messages)) > count(row(2, text="A home of bees."))


def test_the_report_gives_percentiles_shares_above_and_bins_by_language():
    records = [row(number, text="甲" * number, language="zh") for number in range(1, 101)] + [row(200, text="a" * 300, language="en")]
    report = length_report(records, letters, maximum=90)
    assert report["characters"]["all"]["records"] == 101
    assert report["tokens"]["language zh"]["percentiles"] == {"0%": 1, "5%": 6, "25%": 26, "50%": 51, "75%": 76, "95%": 96, "99%": 100, "100%": 100}
    assert report["tokens"]["all"]["above"] == {"records": 11, "share": 11 / 101}
    assert report["tokens"]["language en"]["bins"]["512"] == 1
    assert sum(report["characters"]["all"]["bins"].values()) == 101
    assert length_report(records)["tokens"] is None


@pytest.mark.parametrize("over", ["split", "drop"])
def test_a_row_of_columns_alone_is_told_as_too_long_not_cut(over):
    record = row(1, metadata={"a": "x" * 50})
    (gone,) = fit(record, LengthSettings(over=over), lambda _: 50, maximum=10)
    assert gone.reason == "too_long:50>10"
