"""Files of every kind become records with provenance; what is wrong with them is said with file, line and remedy."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from metier.digest import digest_file
from metier.errors import SourceError
from metier.records import Drop, Message, Record
from metier.sources import SourceSettings, read

COLUMNS = {"prompt": "question", "completion": "answer"}


def settings(path="data/*", **values):
    return SourceSettings(path=path, licence="internal", **values)


def put(root, name, data):
    path = root / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def chat(number):
    return {"messages": [{"role": "user", "content": f"问 {number}"}, {"role": "assistant", "content": f"答 {number}"}]}


def faults_of(root, *sources, **values):
    with pytest.raises(SourceError) as caught:
        list(read(sources or [settings(**values)], root))
    return caught.value.faults


def test_a_record_knows_its_file_line_digest_licence_and_basis(tmp_path):
    path = put(tmp_path, "a.jsonl", lines(chat(1), chat(2)))
    first, second = read([settings(basis="consent-7")], tmp_path)
    assert second.source.uri == "data/a.jsonl"
    assert second.source.position == "line 2"
    assert second.source.digest == digest_file(path)
    assert (second.source.licence, second.source.basis) == ("internal", "consent-7")
    assert first.id != second.id


def test_the_same_input_gives_the_same_ids_and_digest_and_other_bytes_another_digest(tmp_path):
    put(tmp_path, "a.jsonl", lines(chat(1)))
    one, two = read([settings()], tmp_path), read([settings()], tmp_path)
    assert one.digest == two.digest
    assert [record.id for record in one] == [record.id for record in two]
    put(tmp_path, "a.jsonl", lines(chat(2)))
    assert read([settings()], tmp_path).digest != one.digest
    assert read([settings(task="x")], tmp_path).digest != two.digest


def test_files_are_read_in_the_order_of_their_names(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.jsonl"):
        put(tmp_path, name, lines(chat(name)))
    assert [record.source.uri for record in read([settings()], tmp_path)] == ["data/a.jsonl", "data/b.jsonl", "data/c.jsonl"]


def test_reading_is_lazy(tmp_path):
    put(tmp_path, "a.jsonl", lines(chat(1)) + "broken\n" * 50)
    assert isinstance(next(iter(read([settings()], tmp_path))), Record)


def test_the_register_says_what_was_read(tmp_path):
    path = put(tmp_path, "a.jsonl", "\ufeff" + lines(chat(1)) + "broken\n")
    source = read([settings(malformed=0.5, templates=("qa",))], tmp_path)
    list(source)
    list(source)
    assert source.register == [
        {
            "uri": "data/a.jsonl",
            "sha256": digest_file(path),
            "bytes": path.stat().st_size,
            "format": "json, messages",
            "encoding": "utf-8-sig",
            "encoding_reason": "detected: UTF-8 byte order mark, whole file decodes",
            "licence": "internal",
            "basis": None,
            "corpus": None,
            "licence_kind": "named",
            "owner": None,
            "purpose": None,
            "collected": None,
            "retention": None,
            "expires": None,
            "sensitive": None,
            "warnings": [
                "no lawful basis or consent is referred to",
                "nobody is named who answers for the data",
                "no purpose is stated",
                "no retention is stated",
                "no inventory of sensitive columns",
            ],
            "templates": ["qa"],
            "rows": 2,
            "malformed": 1,
            "missing": {},
            "notes": {},
        }
    ]


# Kinds of files


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".ndjson"])
def test_json_lines_and_lists_are_told_by_their_first_character(tmp_path, suffix):
    put(tmp_path, f"lines{suffix}", lines(chat(1), chat(2)))
    put(tmp_path, f"list{suffix}", "\n " + json.dumps([chat(1), chat(2)], ensure_ascii=False, indent=1))
    found = list(read([settings()], tmp_path))
    assert [record.messages for record in found[:2]] == [record.messages for record in found[2:]]
    assert found[3].source.position == "line 15"


def test_gzip_files_are_read_as_what_is_inside(tmp_path):
    put(tmp_path, "a.jsonl.gz", gzip.compress(lines(chat(1)).encode()))
    put(tmp_path, "b.csv.gz", gzip.compress("question,answer\n甲,乙\n".encode("gb18030")))
    first, second = read([settings("data/a*"), settings("data/b*", columns=COLUMNS)], tmp_path)
    assert first.messages[0].content == "问 1"
    assert second.messages[1] == Message("assistant", "乙", True)


def test_csv_with_line_ends_inside_quotes_keeps_its_line_numbers(tmp_path):
    put(tmp_path, "a.csv", 'question,answer\r\n"一\n二","他说""好"""\r\n\r\n三,四\r\n')
    first, second = read([settings(columns=COLUMNS)], tmp_path)
    assert first.messages[0].content == "一\n二"
    assert first.messages[1].content == '他说"好"'
    assert (first.source.position, second.source.position) == ("line 2", "line 5")


def test_tsv_and_a_declared_format_without_suffix(tmp_path):
    put(tmp_path, "a.tsv", "question\tanswer\nwhy?\tbecause, so\n")
    put(tmp_path, "b.data", "question,answer\nwhy?,so\n")
    found = list(read([settings("data/a.tsv", columns=COLUMNS), settings("data/b.data", format="csv", columns=COLUMNS)], tmp_path))
    assert [record.messages[1].content for record in found] == ["because, so", "so"]


def test_parquet_rows_keep_their_numbers_and_dates_become_text(tmp_path):
    (tmp_path / "data").mkdir()
    table = pa.table({"messages": [chat(1)["messages"], chat(2)["messages"]], "seen": pa.array([0, 86_400_000], pa.timestamp("ms")), "x": [1.5, float("nan")]})
    pq.write_table(table, tmp_path / "data" / "a.parquet")
    first, second = read([settings(time="seen", columns={"x": "x"})], tmp_path)
    assert second.messages[0].content == "问 2"
    assert second.source.position == "row 2"
    assert second.time == "1970-01-02T00:00:00"
    assert (first.metadata["x"], second.metadata["x"]) == (1.5, None)


def test_xml_rows_give_children_attributes_and_their_own(tmp_path):
    put(
        tmp_path,
        "a.xml",
        '<?xml version="1.0"?>\n<D><Focus>no</Focus>\n<QA id="7"><Q type="why">A &amp; <b>B</b>?</Q><A>甲</A><A>乙</A></QA>\n'
        '<QA id="8"><Q>C</Q><A>丁</A></QA></D>',
    )
    columns = {"prompt": "Q", "completion": "A", "row": "@id"}
    first, second = read([settings(rows="QA", columns=columns)], tmp_path)
    assert first.messages == (Message("user", "A & B?", False), Message("assistant", "甲\n乙", True))
    assert first.metadata == {"row": "7"}
    assert (first.source.position, second.source.position) == ("line 3", "line 4")


def test_xml_attributes_of_children_are_columns(tmp_path):
    put(tmp_path, "a.xml", '<D><QA><Q type="why">C</Q><A>d</A></QA></D>')
    (record,) = read([settings(rows="QA", columns={"prompt": "Q", "completion": "A", "kind": "Q@type"})], tmp_path)
    assert record.metadata == {"kind": "why"}


def test_xml_that_declares_entities_is_refused(tmp_path):
    put(tmp_path, "a.xml", '<!DOCTYPE D [<!ENTITY a SYSTEM "file:///etc/passwd">]><D><QA><Q>&a;</Q><A>x</A></QA></D>')
    (fault,) = faults_of(tmp_path, rows="QA", columns={"prompt": "Q", "completion": "A"})
    assert "entities" in fault.what


def test_broken_xml_says_the_line(tmp_path):
    put(tmp_path, "a.xml", "<D>\n<QA>\n</D>")
    (fault,) = faults_of(tmp_path, rows="QA", columns={"prompt": "Q", "completion": "A"})
    assert (fault.line, "mismatched tag" in fault.what) == (3, True)


# Columns


def test_mapped_columns_become_fields_of_the_record_and_others_metadata(tmp_path):
    put(tmp_path, "a.csv", "dept,q,lang,who,case,day,unused\n内科,咳嗽,zh,p1,c1,2024-03-01,x\n")
    columns = {"department": "dept", "text": "q", "language": "lang", "label": "dept"}
    (record,) = read([settings(columns=columns, subject="who", group="case", time="day", task="triage")], tmp_path)
    assert (record.text, record.label, record.language, record.task) == ("咳嗽", "内科", "zh", "triage")
    assert (record.subject, record.group, record.time) == ("p1", "c1", "2024-03-01")
    assert record.metadata == {"department": "内科"}
    assert record.messages == ()


def test_a_missing_column_names_the_nearest_one(tmp_path):
    put(tmp_path, "a.csv", "question,answr\na,b\n")
    (fault,) = faults_of(tmp_path, columns=COLUMNS)
    assert "'answer'" in fault.what
    assert fault.remedy == "did you mean 'answr'?"


def test_rows_of_unknown_form_name_their_columns(tmp_path):
    put(tmp_path, "a.csv", "frage,antwort\na,b\n")
    (fault,) = faults_of(tmp_path)
    assert "frage, antwort" in fault.what
    assert "columns:" in fault.remedy


# Malformed rows


def test_malformed_rows_are_kept_with_line_and_raw_text(tmp_path):
    broken = '{"messages": [{"role": "user"'
    put(tmp_path, "a.jsonl", lines(chat(1)) + broken + "\n" + "[1]\n" + lines({"text": "x"}, chat(2)))
    drops = [item for item in read([settings(malformed=0.7)], tmp_path) if isinstance(item, Drop)]
    assert [drop.content for drop in drops] == [broken, "[1]", '{"text": "x"}']
    assert [drop.source.position for drop in drops] == ["line 2", "line 3", "line 4"]
    assert [drop.reason.split(":")[0] for drop in drops] == ["malformed_json", "not_an_object", "missing_key"]
    assert {drop.step for drop in drops} == {"sources"}


def test_too_many_malformed_rows_stop_with_the_first_five_and_the_key(tmp_path):
    put(tmp_path, "a.jsonl", lines(*(chat(number) for number in range(90))) + "机密 13800138000\n" * 10)
    faults = faults_of(tmp_path)
    assert [fault.line for fault in faults[:5]] == [91, 92, 93, 94, 95]
    assert "10 of 100" in faults[5].what
    assert faults[5].key == "malformed"
    assert "13800138000" not in str(faults)
    assert sum(isinstance(item, Drop) for item in read([settings(malformed=0.1)], tmp_path)) == 10


def test_one_malformed_row_in_a_hundred_is_tolerated(tmp_path):
    put(tmp_path, "a.jsonl", lines(*(chat(number) for number in range(99))) + "broken\n")
    assert len(list(read([settings()], tmp_path))) == 100


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"messages": "hi"}', "wrong_type"),
        ('{"messages": [{"role": "user", "content": 3}]}', "wrong_type"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "unknown_role"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "nothing_to_learn"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "roles_out_of_turn"),
        ('{"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "x"}]}', "empty_content"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}, {"role": "assistant", "content": "x"}]}', "lone_surrogate"),
        ('{"messages": ' + "[" * 100_000 + "}", "malformed_json"),
        ('{"n": ' + "9" * 5000 + "}", "malformed_json"),
        ("\x00\x00", "malformed_json"),
    ],
)
def test_a_row_that_does_not_fit_is_dropped_with_its_reason(tmp_path, row, reason):
    put(tmp_path, "a.jsonl", lines(chat(1)) + row + "\n")
    _, drop = read([settings(malformed=0.5)], tmp_path)
    assert drop.reason.split(":")[0] == reason
    assert drop.content == row


@pytest.mark.parametrize(
    ("row", "reason"),
    [("a,b,c", "wrong_field_count"), ("a", "wrong_field_count"), ("a\x00,b", "nul_byte"), (",b", "empty_content"), ('"a"x,b', "malformed_row")],
)
def test_a_csv_row_that_does_not_fit_is_dropped_with_its_reason(tmp_path, row, reason):
    put(tmp_path, "a.csv", f"question,answer\nq,a\n{row}\nr,b\n")
    _, drop, last = read([settings(columns=COLUMNS, malformed=0.5)], tmp_path)
    assert drop.reason.split(":")[0] == reason
    assert (drop.content, drop.source.position) == (row, "line 3")
    assert last.source.position == "line 4"


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(tmp_path):
    put(tmp_path, "a.csv", 'question,answer\nq,a\n"r,b\n' + "s,c\n" * 500)
    (fault,) = faults_of(tmp_path, columns=COLUMNS)
    assert (fault.line, "never closed" in fault.what) == (3, True)


def test_a_broken_json_list_names_the_line(tmp_path):
    put(tmp_path, "a.json", '[\n{"prompt": "a", "completion": "b"},\n{"prompt": "c"\n')
    (fault,) = faults_of(tmp_path)
    assert "cut off" in fault.remedy
    assert fault.line == 4


def test_a_record_of_one_megabyte_works(tmp_path):
    put(tmp_path, "a.jsonl", lines({"prompt": "长" * 400_000, "completion": "b"}))
    (record,) = read([settings()], tmp_path)
    assert len(record.messages[0].content) == 400_000


# Files that are not there, not files, or not whole


def test_the_faults_of_all_sources_come_together(tmp_path):
    put(tmp_path, "empty.jsonl", "")
    put(tmp_path, "cut.jsonl.gz", gzip.compress(lines(chat(1)).encode())[:-9])
    put(tmp_path, "what.bin", "x")
    sources = [settings(f"data/{name}") for name in ("empty.jsonl", "cut.jsonl.gz", "what.bin", "none*.jsonl", "none.csv", "")]
    whats = " | ".join(fault.what for fault in faults_of(tmp_path, *sources))
    for part in ("is empty", "damaged gzip", "suffix '.bin'", "no file matches", "no such file", "folder, not a file"):
        assert part in whats


def test_a_cut_off_parquet_file_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"prompt": ["a"], "completion": ["b"]}), tmp_path / "whole.parquet")
    put(tmp_path, "a.parquet", (tmp_path / "whole.parquet").read_bytes()[:-20])
    (fault,) = faults_of(tmp_path)
    assert "Parquet" in fault.what


def test_a_header_without_rows_and_an_empty_list_hold_no_rows(tmp_path):
    put(tmp_path, "a.csv", "question,answer\n")
    put(tmp_path, "b.json", "[]")
    for name in ("a.csv", "b.json"):
        (fault,) = faults_of(tmp_path, path=f"data/{name}", columns=COLUMNS)
        assert "no rows" in fault.what


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    put(tmp_path, "a.csv", "q,q\na,b\n")
    (fault,) = faults_of(tmp_path, columns={"prompt": "q", "completion": "q"})
    assert "more than once" in fault.what


def test_upward_paths_are_refused():
    with pytest.raises(ValidationError, match="leads upwards"):
        settings("../other/*.jsonl")


def test_links_out_of_the_project_are_refused_and_absolute_paths_are_explicit(tmp_path):
    project, outside = tmp_path / "project", tmp_path / "outside"
    put(outside, "a.jsonl", lines(chat(1)))
    (project / "data").mkdir(parents=True)
    (project / "data" / "link.jsonl").symlink_to(outside / "data" / "a.jsonl")
    (fault,) = faults_of(project)
    assert "leads out" in fault.what
    (record,) = read([settings(str(outside / "data" / "*.jsonl"))], project)
    assert record.source.uri == (outside / "data" / "a.jsonl").as_posix()


def test_an_unreadable_file_is_named(tmp_path):
    path = put(tmp_path, "a.jsonl", lines(chat(1)))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    (fault,) = faults_of(tmp_path)
    assert "permissions" in fault.remedy


def test_a_named_pipe_is_no_data(tmp_path):
    (tmp_path / "data").mkdir()
    os.mkfifo(tmp_path / "data" / "a.jsonl")
    (fault,) = faults_of(tmp_path)
    assert "no regular file" in fault.what


def test_a_file_that_changes_after_hashing_is_noticed(tmp_path):
    put(tmp_path, "a.jsonl", lines(chat(1)))
    source = read([settings()], tmp_path)
    put(tmp_path, "a.jsonl", lines(chat(1), chat(2)))
    with pytest.raises(SourceError, match="changed after"):
        list(source)


def test_hidden_files_are_passed_over(tmp_path):
    put(tmp_path, "._a.jsonl", "resource fork")
    put(tmp_path, "a.jsonl", lines(chat(1)))
    assert len(list(read([settings()], tmp_path))) == 1


def test_no_source_is_a_fault(tmp_path):
    with pytest.raises(SourceError, match="no source"):
        read([], tmp_path)
