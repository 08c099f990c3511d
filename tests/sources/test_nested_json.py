"""Rows that lie in nested lists of JSON are reached by a path; what stands around them comes along, and their place is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from metier.errors import SourceError
from metier.records import Drop, Record
from metier.sources import SourceSettings, read
from metier.sources.paths import keys_of

CONTRACT = "本合同由甲方与乙方订立。租期三年，自二〇二四年起算。"
QUESTIONS = {
    "version": "v1",
    "data": [
        {
            "title": "租赁合同",
            "paragraphs": [
                {
                    "context": CONTRACT,
                    "qas": [
                        {"id": "1", "question": "租期多长？", "answers": [{"text": "三年", "answer_start": CONTRACT.index("三年")}], "is_impossible": False},
                        {"id": "2", "question": "违约金是多少？", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        },
        {
            "title": "Lease",
            "paragraphs": [
                {"context": "The term is three years.", "qas": [{"id": "3", "question": "How long is the term?", "answers": [{"text": "three years"}]}]},
                {
                    "context": "The laws of Utah hold.",
                    "qas": [{"id": "4", "question": "Which law?", "answers": [{"text": "Utah"}, {"text": "laws of Utah"}]}],
                },
            ],
        },
    ],
}
COLUMNS = {"question": "question", "title": "/data.title", "passage": "/data.paragraphs.context", "version": "/version"}


def source(path: Path, value: Any, **settings: Any) -> Any:
    """Return the source of one file with this value, or with this text."""
    path.write_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return read([SourceSettings(**{"path": path.name, "licence": "internal", "rows": "data.paragraphs.qas", "columns": COLUMNS, **settings})], path.parent)


def kept(found: Any) -> list[Record]:
    return [item for item in found if isinstance(item, Record)]


@pytest.mark.parametrize("indent", [None, 1])
def test_questions_come_with_title_and_passage_and_their_place(tmp_path: Path, indent: int | None) -> None:
    found = list(source(tmp_path / "a.json", json.dumps(QUESTIONS, ensure_ascii=False, indent=indent), group="/data.title"))
    assert [record.metadata["question"] for record in found] == ["租期多长？", "违约金是多少？", "How long is the term?", "Which law?"]
    assert found[0].metadata == {"question": "租期多长？", "title": "租赁合同", "passage": CONTRACT, "version": "v1"}
    assert [record.group for record in found] == ["租赁合同", "租赁合同", "Lease", "Lease"]
    assert [record.source.position for record in found] == [
        *("data[0].paragraphs[0].qas[0]", "data[0].paragraphs[0].qas[1]", "data[1].paragraphs[0].qas[0]", "data[1].paragraphs[1].qas[0]")
    ]
    assert len({record.id for record in found}) == 4


def test_each_answer_can_be_a_row_with_its_question_around_it(tmp_path: Path) -> None:
    columns = {"prompt": "/data.paragraphs.qas.question", "completion": "text", "contract": "/data.title"}
    found = list(source(tmp_path / "a.json", QUESTIONS, rows="data.paragraphs.qas.answers", columns=columns, task="answer"))
    assert [tuple(message.content for message in record.messages) for record in found] == [
        *(("租期多长？", "三年"), ("How long is the term?", "three years"), ("Which law?", "Utah"), ("Which law?", "laws of Utah"))
    ]
    assert found[-1].source.position == "data[1].paragraphs[1].qas[0].answers[1]"


def test_a_path_begins_at_every_line_and_at_every_item_of_a_list(tmp_path: Path) -> None:
    columns = {"question": "question", "title": "/title"}
    lines = "\n".join(json.dumps(item, ensure_ascii=False) for item in QUESTIONS["data"])
    in_lines = kept(source(tmp_path / "a.jsonl", lines, rows="paragraphs.qas", columns=columns))
    listed = kept(source(tmp_path / "a.json", QUESTIONS["data"], rows="paragraphs.qas", columns=columns))
    assert [record.metadata for record in in_lines] == [record.metadata for record in listed]
    assert [in_lines[0].source.position, in_lines[3].source.position] == ["line 1, paragraphs[0].qas[0]", "line 2, paragraphs[1].qas[0]"]
    assert listed[3].source.position == "[1].paragraphs[1].qas[0]"
    plain = kept(source(tmp_path / "b.json", lines, rows="paragraphs.qas", columns=columns))
    assert [record.source.position for record in plain] == [record.source.position for record in in_lines]


def test_a_star_stands_for_any_key_and_an_object_in_place_of_a_list_is_one_row(tmp_path: Path) -> None:
    value = {"甲 法": {"articles": {"text": "第一条", "n": {"x": 1}}}, "乙法": {"articles": [{"text": "第二条"}, [{"text": "第三条"}]]}}
    found = list(source(tmp_path / "a.json", value, rows="*.articles", columns={"law": "/*@key"}))
    assert [(record.text, record.metadata["law"], record.source.position) for record in found] == [
        *(("第一条", "甲 法", '["甲 法"].articles'), ("第二条", "乙法", "乙法.articles[0]"), ("第三条", "乙法", "乙法.articles[1][0]"))
    ]
    (last,) = source(tmp_path / "b.json", {"laws": {"甲法": {"text": "第一条"}}}, rows="laws.*", columns={"law": "@key"})
    assert (last.metadata["law"], last.source.position) == ("甲法", "laws.甲法")


def test_a_key_that_holds_a_dot_is_named_in_brackets(tmp_path: Path) -> None:
    value = {"v1.0": {"title": "合同", "问.答": [{"q": "租期多长？", "a.b": "三年"}]}, 'say "hi".': [{"q": "Which law?"}]}
    columns = {"question": "q", "answer": "a.b", "title": '/["v1.0"].title'}
    (record,) = kept(source(tmp_path / "a.json", value, rows='["v1.0"]["问.答"]', columns=columns))
    assert record.metadata == {"question": "租期多长？", "answer": "三年", "title": "合同"}
    assert record.source is not None and record.source.position == '["v1.0"]["问.答"][0]'
    (quoted,) = kept(source(tmp_path / "a.json", value, rows='["say \\"hi\\"."]', columns={"question": "q"}))
    assert quoted.metadata["question"] == "Which law?"


@pytest.mark.parametrize(
    ("path", "keys"),
    [("a", ["a"]), ("a.b", ["a", "b"]), ('a["b.c"].d', ["a", "b.c", "d"]), ('["a.b"]["c"]', ["a.b", "c"]), ("a.*", ["a", "*"]), ("a[0].b", ["a[0]", "b"])],
)
def test_a_path_is_its_keys(path: str, keys: list[str]) -> None:
    assert keys_of(path) == keys


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", '["a', '["a"]b', '["a"].', 'a["b"]]'])
def test_what_is_no_path_says_how_one_is_written(path: str) -> None:
    with pytest.raises(ValueError, match="is no path of keys"):
        keys_of(path)


def test_a_part_that_is_missing_here_and_there_goes_to_the_drop_ledger(tmp_path: Path) -> None:
    value = {"data": [*QUESTIONS["data"], {"title": "empty"}, {"title": "null", "paragraphs": None}, {"title": "text", "paragraphs": ["x"]}], "version": "v1"}
    found = list(source(tmp_path / "a.json", value, malformed=0.9))
    drops = [(item.reason, item.source.position) for item in found if isinstance(item, Drop)]
    assert drops == [("missing_key:paragraphs", "data[2]"), ("missing_key:paragraphs", "data[3]"), ("wrong_type:no object with qas", "data[4].paragraphs[0]")]
    assert len(kept(found)) == 4
    with pytest.raises(SourceError, match=r"a.json: malformed row: data\[2\]: missing_key:paragraphs"):
        list(source(tmp_path / "a.json", value))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("dta.paragraphs.qas", "the top has no 'dta'; it has version, data\n    -> did you mean 'data'?"),
        ("data.paragrafs.qas", "data[0] has no 'paragrafs'; it has title, paragraphs\n    -> did you mean 'paragraphs'?"),
        ("data.paragraphs.answers", "data[0].paragraphs[0] has no 'answers'; it has context, qas\n    -> valid: context, qas"),
        ("data.title.text", "data[0].title has no 'text'; it is no object"),
    ],
)
def test_a_path_that_a_file_does_not_have_names_what_is_missing_and_what_is_there(tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(SourceError) as raised:
        list(source(tmp_path / "a.json", QUESTIONS, rows=path, malformed=1.0))
    assert f"a.json: rows: the file has no part {path!r} that holds rows: {said}" in str(raised.value)


def test_an_empty_key_and_a_kind_of_file_without_parts_are_refused(tmp_path: Path) -> None:
    for path in ("data..qas", "", ".data"):
        with pytest.raises(ValidationError, match="is no path of keys"):
            SourceSettings(path="a.json", licence="x", rows=path)
    with pytest.raises(SourceError, match="files of the kind 'csv' have no parts that rows could lie in"):
        source(tmp_path / "a.csv", "question\nwhy\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"data": [\n{"title": "x",\n', "a.json:3: broken JSON"),
        ('{\n"data": [' + "9" * 5000 + "]}", "broken JSON: a number or nesting beyond"),
        ('[{"data": 1}', "broken JSON list"),
        ('{"data": {"paragraphs": {"qas": []}}}', "the file holds no rows\n    -> check its content and the key `rows`"),
    ],
)
def test_a_broken_file_and_one_without_rows_are_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SourceError) as raised:
        list(source(tmp_path / "a.json", text))
    assert said in str(raised.value)


def test_one_object_is_read_up_to_a_size_and_lines_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(QUESTIONS, ensure_ascii=False, indent=1)
    monkeypatch.setattr("metier.sources.jsonrows.LARGEST_WHOLE", 300)
    with pytest.raises(SourceError, match=r"one JSON object of more than 300 characters\n    -> write its rows one a line"):
        list(source(tmp_path / "a.json", text))
    lines = "\n".join(json.dumps(QUESTIONS, ensure_ascii=False) for _ in range(20))
    assert len(kept(source(tmp_path / "b.json", lines))) == 80


def test_long_first_lines_are_told_from_one_object_by_what_comes_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metier.sources.jsonrows.LARGEST_START", 50)
    one = json.dumps(QUESTIONS, ensure_ascii=False)
    assert kept(source(tmp_path / "a.json", one + "\n \n"))[0].source.position == "data[0].paragraphs[0].qas[0]"
    assert [item.source.position for item in kept(source(tmp_path / "b.json", f"{one}\n{one}\n"))][::4] == [
        *("line 1, data[0].paragraphs[0].qas[0]", "line 2, data[0].paragraphs[0].qas[0]")
    ]


def test_half_a_surrogate_pair_costs_its_row_alone(tmp_path: Path) -> None:
    text = json.dumps(QUESTIONS, indent=1).replace("Which law?", "Which \\ud83d law?").replace("How long", "How \\ud83d\\ude00 long")
    found = list(source(tmp_path / "a.json", text, malformed=0.5))
    (drop,) = [item for item in found if isinstance(item, Drop)]
    assert (drop.reason, drop.source.position) == ("lone_surrogate", "data[1].paragraphs[1].qas[0]")
    assert kept(found)[2].metadata["question"] == "How \U0001f600 long is the term?"


def test_lists_in_lists_are_walked_however_deep(tmp_path: Path) -> None:
    depth = 400
    (record,) = source(tmp_path / "a.json", '{"data": ' + "[" * depth + '{"text": "x"}' + "]" * depth + "}", rows="data", columns={})
    assert record.source.position == "data" + "[0]" * depth


def test_rows_may_be_conversations(tmp_path: Path) -> None:
    value = {"threads": [{"messages": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "您好"}]}]}
    (record,) = source(tmp_path / "a.json", value, rows="threads", columns={})
    assert [message.content for message in record.messages] == ["你好", "您好"]
