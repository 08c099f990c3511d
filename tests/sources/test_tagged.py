from __future__ import annotations

import json
from pathlib import Path

import pytest

from metier.errors import SourceError
from metier.records import Drop, Record, Span
from metier.sources import SourceSettings, read
from metier.sources.tagged import SpanError, joined, spans_of_column

WORDS = ["Parkinson", "'", "s", "disease", "and", "levodopa", "."]
CHINESE = ["帕", "金", "森", "病", "用", "左旋多巴", "2", "mg", "。"]


def rows(folder: Path, name: str, text: str, **settings: object) -> list[Record | Drop]:
    (folder / name).write_text(text, encoding="utf-8")
    source = SourceSettings(path=name, licence="CC0-1.0", malformed=1.0, **settings)  # type: ignore[arg-type]
    return list(read([source], folder))


@pytest.mark.parametrize(
    "tags",
    [
        ["B-D", "I-D", "I-D", "I-D", "O", "B-C", "O"],
        ["I-D", "I-D", "I-D", "I-D", "O", "I-C", "O"],
        ["B-D", "I-D", "I-D", "E-D", "O", "S-C", "O"],
        ["B-D", "I-D", "I-D", "L-D", "O", "U-C", "O"],
    ],
    ids=["BIO", "IOB1", "BIOES", "BILOU"],
)
def test_every_scheme_of_tags_gives_the_same_spans(tags: list[str]) -> None:
    text, spans = joined(WORDS, tags)
    assert text == "Parkinson ' s disease and levodopa ."
    assert spans == (Span(0, 21, "D", "Parkinson ' s disease"), Span(26, 34, "C", "levodopa"))


def test_neighbours_of_one_type_are_told_apart_by_their_beginning() -> None:
    assert [span.text for span in joined(["a", "b", "c"], ["B-D", "B-D", "I-D"])[1]] == ["a", "b c"]
    assert [span.text for span in joined(["a", "b"], ["I-D", "I-C"])[1]] == ["a", "b"]


def test_chinese_words_are_joined_without_a_space() -> None:
    text, spans = joined(CHINESE, ["B-D", "I-D", "I-D", "E-D", "O", "S-C", "O", "O", "O"])
    assert text == "帕金森病用左旋多巴 2 mg 。"
    assert [(span.text, span.type) for span in spans] == [("帕金森病", "D"), ("左旋多巴", "C")]


def test_a_conll_file_is_read_with_the_line_of_each_sentence(tmp_path: Path) -> None:
    content = "-DOCSTART- O\n\nParkinson NN B-D\ndisease NN I-D\n\n帕\tO\n金\tB-D\n\n\nlast O"
    found = rows(tmp_path, "all.conll", content)
    assert [item.text for item in found if isinstance(item, Record)] == ["Parkinson disease", "帕金", "last"]
    assert [item.source.position for item in found if item.source] == ["line 3", "line 6", "line 10"]
    assert [span.text for item in found if isinstance(item, Record) for span in item.spans] == ["Parkinson disease", "金"]


def test_a_tsv_is_read_as_tagged_words_where_the_source_says_so(tmp_path: Path) -> None:
    (record,) = rows(tmp_path, "train.tsv", "Selegiline\tB-Chemical\n-\tO\n\n", format="conll")
    assert isinstance(record, Record)
    assert (record.text, record.spans) == ("Selegiline -", (Span(0, 10, "Chemical", "Selegiline"),))


def test_rows_of_tokens_and_tags_are_told_by_their_keys(tmp_path: Path) -> None:
    line = json.dumps({"tokens": ["red", "pen"], "tags": ["B-C", "O"]})
    (record,) = rows(tmp_path, "all.jsonl", line)
    assert isinstance(record, Record)
    assert (record.text, record.spans) == ("red pen", (Span(0, 3, "C", "red"),))
    (mapped,) = rows(tmp_path, "own.jsonl", json.dumps({"words": ["红", "笔"], "ner": ["B-C", "O"]}), columns={"tokens": "words", "tags": "ner"})
    assert isinstance(mapped, Record)
    assert mapped.text == "红笔"


def test_a_column_of_spans_is_read_in_code_points(tmp_path: Path) -> None:
    lines = [
        {"note": "\U0001f41d red pen", "marks": [{"start": 2, "end": 5, "label": "C", "text": "red"}]},
        {"note": "红笔", "marks": [[0, 1, "C"]]},
        {"note": "no mark", "marks": []},
    ]
    found = rows(tmp_path, "all.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in lines), columns={"text": "note", "spans": "marks"})
    assert [item.spans for item in found if isinstance(item, Record)] == [(Span(2, 5, "C", "red"),), (Span(0, 1, "C", "红"),), ()]


@pytest.mark.parametrize(
    ("spans", "reason"),
    [
        ([{"start": 0, "end": 9, "type": "C"}], "span_outside_text"),
        ([{"start": 0, "end": 3, "type": "C", "text": "pen"}], "span_elsewhere"),
        ([{"start": "0", "end": 3, "type": "C"}], "wrong_type"),
        ([{"start": 0, "end": 3}], "wrong_type"),
        ([[0, 3]], "wrong_type"),
        ("0-3", "wrong_type"),
    ],
)
def test_spans_that_mark_nothing_are_refused_without_their_text(spans: object, reason: str) -> None:
    with pytest.raises(SpanError, match=reason) as caught:
        spans_of_column(spans, "red pen")
    assert "red" not in str(caught.value)


@pytest.mark.parametrize(
    ("tokens", "tags", "reason"),
    [
        (["a"], ["B-C", "O"], "wrong_number_of_tags"),
        (["a"], [3], "not their numbers"),
        (["a"], ["C"], "unknown_tag"),
        (["a"], ["B"], "unknown_tag"),
        ("a", "O", "wrong_type"),
    ],
)
def test_tags_of_another_kind_are_refused(tokens: object, tags: object, reason: str) -> None:
    with pytest.raises(SpanError, match=reason):
        joined(tokens, tags)


def test_a_line_without_a_tag_is_malformed_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "all.conll").write_text("red B-C\npen\n\nlast O\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"no_tag"):
        list(read([SourceSettings(path="all.conll", licence="CC0-1.0")], tmp_path))
