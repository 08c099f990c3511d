"""Whatever form a conversation is written in, the messages are the same."""

import json

import pytest
from pydantic import ValidationError

from metier.records import Message
from metier.sources import SourceSettings, read

SYSTEM, Q1, A1, Q2, A2 = "你是助手。", "头痛怎么办？", "多休息。", "And tea?", "Yes, a little."
EXPECTED = (
    Message("system", SYSTEM),
    Message("user", Q1),
    Message("assistant", A1, True),
    Message("user", Q2),
    Message("assistant", A2, True),
)
TURNS = [("system", SYSTEM), ("user", Q1), ("assistant", A1), ("user", Q2), ("assistant", A2)]
NAMES = {"user": "human", "assistant": "gpt", "system": "system"}
MESSAGES = [{"role": role, "content": text} for role, text in TURNS]
ROWS = {
    "messages": {"messages": MESSAGES},
    "sharegpt": {"conversations": [{"from": NAMES[role], "value": text} for role, text in TURNS]},
    "sharegpt with a system key": {"system": SYSTEM, "conversations": [{"from": NAMES[role], "value": text} for role, text in TURNS[1:]]},
    "alpaca": {"system": SYSTEM, "instruction": Q2, "input": "", "output": A2, "history": [[Q1, A1]]},
    "prompt-completion": {"prompt": MESSAGES[:4], "completion": MESSAGES[4:]},
}


def only(tmp_path, row, **values):
    (tmp_path / "a.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    (record,) = read([SourceSettings(path="a.jsonl", licence="x", **values)], tmp_path)
    return record


@pytest.mark.parametrize("form", ROWS)
def test_every_form_gives_the_same_messages(tmp_path, form):
    assert only(tmp_path, ROWS[form]).messages == EXPECTED
    assert only(tmp_path, ROWS[form], format=form.split()[0]).messages == EXPECTED


def test_plain_prompt_and_completion_are_two_messages(tmp_path):
    assert only(tmp_path, {"prompt": Q1, "completion": A1}).messages == (Message("user", Q1), Message("assistant", A1, True))


def test_the_input_of_alpaca_follows_its_instruction_on_a_new_line(tmp_path):
    record = only(tmp_path, {"instruction": "翻译：", "input": "tea", "output": "茶"})
    assert record.messages[0].content == "翻译：\ntea"


def test_a_message_may_say_that_it_is_not_learnt(tmp_path):
    row = {"messages": [*MESSAGES[1:2], {**MESSAGES[2], "learn": False}, *MESSAGES[3:]]}
    assert [message.learn for message in only(tmp_path, row).messages] == [False, False, False, True]


def test_keys_of_a_form_may_have_other_names_and_other_columns_become_metadata(tmp_path):
    row = {"问题": Q1, "答案": A1, "科室": "内科", "other": 1}
    record = only(tmp_path, row, columns={"instruction": "问题", "output": "答案", "department": "科室"})
    assert record.messages == (Message("user", Q1), Message("assistant", A1, True))
    assert record.metadata == {"department": "内科"}


def test_a_declared_form_wins_over_the_keys(tmp_path):
    row = {**ROWS["messages"], "prompt": Q1, "completion": A1}
    assert len(only(tmp_path, row).messages) == 5
    assert len(only(tmp_path, row, format="prompt-completion").messages) == 2


def test_text_alone_is_plain_text(tmp_path):
    record = only(tmp_path, {"text": "一段话。"})
    assert (record.text, record.messages) == ("一段话。", ())


@pytest.mark.parametrize(
    "values", [{"format": "xml"}, {"columns": {"subject": "who"}}, {"malformed": 1.5}, {"licence": ""}, {"path": "a/../../b"}, {"unknown": 1}]
)
def test_settings_that_cannot_work_are_refused(values):
    with pytest.raises(ValidationError):
        SourceSettings(**{"path": "a.jsonl", "licence": "x", **values})
