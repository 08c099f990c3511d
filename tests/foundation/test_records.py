from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.artifacts import Artifact
from metier.digest import canonical_json, digest_bytes, digest_file, digest_of
from metier.errors import StoreError
from metier.records import Drop, Message, Record, Source, Span, identify, moved, record_from_dict, record_to_dict, strings, with_strings
from metier.shards import dataset_records, read_drops, read_records, write_drops, write_records

WORDS = st.text(max_size=20).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
RECORDS = st.builds(
    Record,
    id=WORDS,
    text=WORDS,
    messages=st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), WORDS, st.booleans()), max_size=3).map(tuple),
    label=st.none() | WORDS,
    spans=st.lists(st.builds(Span, st.integers(0, 9), st.integers(0, 9), WORDS, WORDS, st.floats(0, 1), WORDS), max_size=2).map(tuple),
    language=st.none() | st.sampled_from(["zh", "en"]),
    source=st.none() | st.builds(Source, WORDS, WORDS, WORDS, WORDS, WORDS),
    parents=st.lists(WORDS, max_size=2).map(tuple),
    metadata=st.dictionaries(WORDS, st.none() | WORDS | st.integers(-9, 9) | st.lists(WORDS, max_size=2), max_size=3),
)


@given(RECORDS)
def test_a_record_survives_plain_values(record: Record) -> None:
    assert record_from_dict(json.loads(json.dumps(record_to_dict(record)))) == record


@given(RECORDS)
def test_every_string_of_a_record_goes_out_and_comes_back(record: Record) -> None:
    found = strings(record)
    assert with_strings(record, found) == record
    changed = with_strings(record, [f"<{text}>" for text in found])
    assert strings(changed) == [f"<{text}>" for text in found]


@given(st.lists(RECORDS, max_size=4))
def test_records_survive_parquet(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    path = tmp_path_factory.mktemp("shards") / "part.parquet"
    assert write_records(path, records) == len(records)
    assert list(read_records(path)) == records


def test_drops_survive_parquet(tmp_path: Path) -> None:
    drops = [Drop("a", "sources", "malformed_json:line 3", Source("数据.jsonl", "d", "3", "internal"), '{"坏'), Drop("b", "quality", "too_short:3<20")]
    write_drops(tmp_path / "drops.parquet", drops)
    assert list(read_drops(tmp_path / "drops.parquet")) == drops


def test_a_truncated_shard_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_records(path, [Record("a", "text")])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"part\.parquet cannot be read"):
        list(read_records(path))


def test_a_split_is_read_from_its_own_shards_in_order(tmp_path: Path) -> None:
    for name, text in (("part-train-00001", "c"), ("part-train-00000", "b"), ("part-test-00000", "t")):
        write_records(tmp_path / f"{name}.parquet", [Record(text)])
    files = {path.name: {} for path in tmp_path.iterdir()}
    dataset = Artifact("dataset", "d", (), tmp_path, {}, files)
    assert [record.id for record in dataset_records(dataset, "train")] == ["b", "c"]


def test_an_id_follows_content_and_place_and_nothing_else() -> None:
    here, there = Source("a.csv", "x", "row 1", "internal"), Source("a.csv", "x", "row 2", "internal")
    record = Record("", "text", source=here)
    assert identify(record) == identify(Record("other", "text", source=Source("a.csv", "y", "row 1", "cc0"), language="en"))
    assert len({identify(record), identify(Record("", "texts", source=here)), identify(Record("", "text", source=there))}) == 3
    assert len(identify(record)) == 32


def test_canonical_json_is_one_form_and_knows_no_nan(tmp_path: Path) -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "高"}) == '{"a":"高","b":[1,2.5,null]}'.encode()
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))
    # FIPS 180-4, example of the one-block message "abc"
    assert digest_bytes(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "abc").write_bytes(b"abc")
    assert digest_file(tmp_path / "abc") == digest_bytes(b"abc")


@pytest.mark.parametrize(
    ("before", "after", "spans"),
    [
        ("<b>红笔</b>在左边", "红笔在左边", ["红笔"]),
        ("the  red   pen", "the red pen", ["red pen"]),
        ("call 138-0000 about the red pen", "call 139-1111 about the red pen", ["red pen"]),
        ("red pen", "The red pen!", ["red pen"]),
    ],
)
def test_spans_move_with_the_text_that_they_mark(before: str, after: str, spans: list[str]) -> None:
    marked = before.replace("  ", " ") if spans[0] not in before else before
    piece = spans[0] if spans[0] in before else "red   pen"
    start = before.index(piece)
    record = Record(id="", text=before, spans=(Span(start, start + len(piece), "Thing", piece),))
    assert marked
    assert [span.text for span in with_strings(record, [after]).spans] == spans
    assert with_strings(record, [before]).spans == record.spans


def test_a_span_whose_text_is_gone_goes_with_it() -> None:
    record = Record(id="", text="red <img> pen", spans=(Span(4, 9, "Tag"), Span(10, 13, "Thing")))
    assert [(span.text, span.start) for span in with_strings(record, ["red  pen"]).spans] == [("pen", 5)]


def test_a_span_holds_what_replaced_it() -> None:
    spans = (Span(0, 2, "Name", "张伟"), Span(5, 7, "Thing", "红笔"))
    assert [span.text for span in moved(spans, [(0, 2, 0, 3)], "李伟明有一支红笔")[:1]] == ["李伟明"]
    assert [span.text for span in moved((Span(0, 4, "Name"),), [(1, 3, 1, 6)], "a12345b")] == ["a12345b"]


def test_the_id_of_a_record_knows_its_spans() -> None:
    plain, marked = Record(id="", text="red"), Record(id="", text="red", spans=(Span(0, 3, "C"),))
    assert identify(plain) != identify(marked)
