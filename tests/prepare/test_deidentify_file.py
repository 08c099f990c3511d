import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metier.engines import LOCAL, Processes
from metier.errors import InputError, SourceError
from metier.prepare import deidentify_file as module
from metier.prepare.deidentify_file import FileJob, deidentify_file, peek
from metier.prepare.policy_diff import compare_policies
from metier.prepare.rowtexts import texts, with_texts
from metier.privacy import load_policy
from metier.privacy.vault import KeyFile, Vault, make_key

KEY = bytes(range(32))
SEEDED = ("张伟", "欧阳小红", "13812345678", "Jane Doe", "219-09-9999", "13987654321")
ROWS = [
    {"id": 1, "who": "a", "text": "姓名：张伟，电话13812345678。", "tel": 13987654321, "chat": [{"role": "user", "content": "我叫张伟，头痛"}]},
    {"id": 2, "who": "b", "text": "Name: Jane Doe, SSN 219-09-9999.", "tel": 1, "chat": [{"role": "user", "content": "dose 0.5 mg"}]},
    {"id": 3, "who": "a", "text": "联系人：欧阳小红", "tel": 2, "chat": []},
]


def job(source: Path, *fields: str, **more: object) -> FileJob:
    return FileJob(source=source, fields=fields or ("text",), key=more.pop("key", KEY), policy=load_policy(more.pop("policy", "pipl")), **more)


def jsonl(folder: Path, rows: list[dict] | None = None, name: str = "in.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in (ROWS if rows is None else rows)), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def clean(path: Path, *but: str) -> bool:
    text = path.read_text(encoding="utf-8")
    return not any(value in text for value in SEEDED if value not in but)


def test_named_fields_are_replaced_wherever_they_are_and_the_rest_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    report = deidentify_file(job(jsonl(tmp_path), "text", "chat.content"), out)
    rows = read(out)
    assert clean(out, "13987654321")
    assert [row["tel"] for row in rows] == [13987654321, 1, 2]
    name = rows[0]["text"][3:5]
    assert rows[0]["chat"][0]["content"] == f"我叫{name}，头痛" and rows[0]["chat"][0]["role"] == "user"
    assert rows[1]["chat"] == ROWS[1]["chat"]
    assert (report.rows, report.written, report.quarantined, report.untouched) == (3, 3, 0, ("id", "who", "tel"))
    assert report.still_in == {}
    assert report.replaced == {"PERSON": 4, "PHONE_NUMBER": 1, "US_SSN": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_fields_that_nobody_looked_at_and_that_hold_the_same_values_are_named(tmp_path: Path) -> None:
    assert deidentify_file(job(jsonl(tmp_path)), tmp_path / "out.jsonl").still_in == {"chat": 1}


def test_numbers_are_texts_where_they_are_named(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows = [{"tel": "电话13812345678"}, {"tel": 5}, {"tel": None}, {"tel": 2.5}]
    deidentify_file(job(jsonl(tmp_path, rows), "tel"), out)
    assert [row["tel"] for row in read(out)][1:] == [5, None, 2.5]


def test_spans_stand_beside_the_text(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    deidentify_file(job(jsonl(tmp_path), spans=True), out)
    for old, new in zip(ROWS, read(out), strict=True):
        assert new["spans"]
        for span in new["spans"]:
            assert old["text"][span["start"] : span["end"]] in SEEDED
            assert new["text"][span["new_start"] : span["new_end"]] == span["text"]
            assert span["entity"] and span["rule"] and 0 < span["score"] <= 1


@pytest.mark.parametrize(("name", "delimiter"), [("csv", ","), ("tsv", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_tables_are_read_and_written_in_their_form(tmp_path: Path, name: str, delimiter: str, encoding: str) -> None:
    source, out = tmp_path / f"in.{name}", tmp_path / f"out.{name}"
    with source.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([["id", "text"], ["1", '姓名：张伟，"说"\n电话13812345678'], ["2", "无"], ["3", "x", "y"]])
    report = deidentify_file(job(source, encoding=encoding, spans=True), out)
    with out.open(encoding=encoding, newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter=delimiter))
    assert [row["id"] for row in rows] == ["1", "2"] and rows[0]["text"].count("\n") == 1
    assert not any(value in rows[0]["text"] for value in SEEDED)
    assert [span["entity"] for span in json.loads(rows[0]["spans"])] == ["PERSON", "PHONE_NUMBER"]
    (aside,) = read(tmp_path / f"out.{name}.quarantine.jsonl")
    assert (report.quarantined, aside["reason"], aside["detail"], aside["line"]) == (1, "malformed", "3 cells in 2 columns", 5)


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    columns = {"id": pa.array([1, 2], pa.int16()), "text": ["姓名：张伟", None], "tel": [13987654321, 5], "chat": [[{"content": "电话13812345678"}], None]}
    pq.write_table(pa.table(columns), source)
    deidentify_file(job(source, "text", "tel", "chat"), out)
    table = pq.read_table(out)
    assert table.schema.field("id").type == pa.int16() and table.schema.field("tel").type == pa.string()
    assert table.column("chat").type == pa.table(columns).column("chat").type
    assert not any(value in str(table.to_pylist()) for value in ("张伟", "13812345678"))


def test_any_number_of_processes_writes_the_same_bytes(tmp_path: Path) -> None:
    source = jsonl(tmp_path, ROWS * 200)
    made = []
    for engine, name in ((LOCAL, "one"), (Processes(2), "two")):
        deidentify_file(job(source, "text", "chat"), tmp_path / f"{name}.jsonl", engine=engine)
        made.append((tmp_path / f"{name}.jsonl").read_bytes())
    assert made[0] == made[1] and made[0].count(b"\n") == 600


class Stopping:
    """An engine that is stopped after some chunks, as by Ctrl-C."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.done = 0

    def map(self, function, items) -> Iterator:
        for item in items:
            if self.done == self.after:
                raise KeyboardInterrupt
            self.done += 1
            yield function(item)


@pytest.mark.parametrize("key", [KEY, b""])
def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, key: bytes) -> None:
    source, out = jsonl(tmp_path, ROWS * 400), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        deidentify_file(job(source, "text", "chat", key=key), out, engine=Stopping(3))
    assert not out.exists()
    assert all(clean(path) for path in (tmp_path / ".out.jsonl.work").glob("*.json"))
    rest = Stopping(99)
    deidentify_file(job(source, "text", "chat", key=key), out, engine=rest)
    assert rest.done == 2
    rows = read(out)
    assert len(rows) == 1200 and clean(out, "13987654321")
    assert len({row["text"] for row in rows}) == 3, "one key for the whole file"


def test_another_job_or_source_does_not_go_on_with_old_chunks(tmp_path: Path) -> None:
    source, out = jsonl(tmp_path, ROWS * 400), tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        deidentify_file(job(source), out, engine=Stopping(3))
    again = Stopping(99)
    deidentify_file(job(source, policy="strict"), out, engine=again)
    assert again.done == 5 and "[PERSON]" in out.read_text(encoding="utf-8")


def test_whatever_breaks_sets_the_row_aside_and_shows_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    real = module.deidentify_texts

    def broken(found, **more):
        if "张伟" in found[0]:
            raise ZeroDivisionError(found[0])
        return real(found, **more)

    monkeypatch.setattr(module, "deidentify_texts", broken)
    out = tmp_path / "out.jsonl"
    rows = [*ROWS, {"id": 4, "text": "银行卡流水共计623456元"}]
    source = jsonl(tmp_path, rows)
    with source.open("a", encoding="utf-8") as stream:
        stream.write('{"text": "姓名：张伟"\n[1]\n')
    report = deidentify_file(job(source), out)
    aside = tmp_path / "out.jsonl.quarantine.jsonl"
    assert [(row["row"], row["line"], row["reason"]) for row in read(aside)] == [
        (0, 1, "deidentify_failed:ZeroDivisionError"),
        (3, 4, "deidentify_failed:PrivacyError"),
        (4, 5, "malformed"),
        (5, 6, "malformed"),
    ]
    assert (report.written, report.quarantined) == (2, 4)
    shown = capfd.readouterr()
    for text in (aside.read_text(encoding="utf-8"), repr(report), shown.out, shown.err):
        assert not any(value in text for value in (*SEEDED, "623456"))


def test_a_vault_keeps_what_was_replaced_by_person(tmp_path: Path) -> None:
    make_key(tmp_path / "key")
    out = tmp_path / "out.jsonl"
    policy = load_policy("hipaa").disguised("token")
    made = FileJob(jsonl(tmp_path), ("text", "chat"), policy, KEY, subject="who", spans=True, vault=(tmp_path / "vault", tmp_path / "key"))
    deidentify_file(made, out, engine=Processes(2))
    vault = Vault(tmp_path / "vault", KeyFile(tmp_path / "key"))
    assert (vault.state().subjects, vault.state().originals) == (2, 5)
    spans = [span for row in read(out) for span in row["spans"]]
    found = vault.reveal([span["token"] for span in spans], purpose="a test", name="T", record=lambda event: 0)
    assert {item.value for item in found} == {"张伟", "13812345678", "Jane Doe", "219-09-9999", "欧阳小红"}
    assert clean(out, "13987654321")


def test_wrong_input_is_said_with_place_and_remedy(tmp_path: Path) -> None:
    source = jsonl(tmp_path)
    with pytest.raises(InputError, match="did you mean 'text'"):
        deidentify_file(job(source, "texts"), tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="written as csv"):
        deidentify_file(job(source), tmp_path / "out.csv")
    with pytest.raises(InputError, match="source itself"):
        deidentify_file(job(source), source)
    with pytest.raises(InputError, match="no form of rows"):
        deidentify_file(job(tmp_path / "in.docx"), tmp_path / "out.docx")
    with pytest.raises(SourceError, match="no such file"):
        deidentify_file(job(tmp_path / "none.jsonl"), tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="already"):
        deidentify_file(job(jsonl(tmp_path, [{"text": "x", "spans": 1}], "two.jsonl"), spans=True), tmp_path / "out.jsonl")
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(SourceError, match="not a Parquet file"):
        deidentify_file(job(tmp_path / "x.parquet"), tmp_path / "out.parquet")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_file_without_rows_and_one_of_another_encoding_say_so(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    with pytest.raises(InputError, match="holds no rows"):
        deidentify_file(job(tmp_path / "empty.jsonl"), tmp_path / "out.jsonl")
    (tmp_path / "gbk.jsonl").write_bytes('{"text": "姓名：张伟"}\n'.encode("gb18030") * 9)
    with pytest.raises(InputError) as caught:
        deidentify_file(job(tmp_path / "gbk.jsonl"), tmp_path / "out.jsonl")
    assert "cannot be read" in str(caught.value)
    assert "--encoding gb18030" in str(caught.value)
    assert len(caught.value.faults) == 5
    assert "张" not in str(caught.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_a_preview_says_what_would_be_replaced_by_which_rule(tmp_path: Path) -> None:
    shown = list(peek(job(jsonl(tmp_path, [*ROWS, {"text": "银行卡流水共计623456元"}])), count=10))
    assert [(item.row.number, item.place, [part.entity for part in item.replacements]) for item in shown[:2]] == [
        (0, "text", ["PERSON", "PHONE_NUMBER"]),
        (1, "text", ["PERSON", "US_SSN"]),
    ]
    assert shown[-1].fault is not None and "623456" not in shown[-1].fault


def test_two_policies_are_compared_on_the_user_s_data(tmp_path: Path) -> None:
    rows = [{"text": "姓名：张伟，家住广东省深圳市南山区科技园路1号"}, {"text": "电话13812345678"}]
    found = compare_policies(jsonl(tmp_path, rows), ["text"], (load_policy("hipaa"), load_policy("strict")))
    assert found.rows == 2
    assert [side["actions"] for side in found.entities["PERSON"]] == [{"surrogate": 1}, {"mask": 1}]
    assert [side["example"] for side in found.entities["PHONE_NUMBER"]][1] == "99999999999 -> [PHONE_NUMBER]"
    assert found.entities["ADDRESS"][0]["example"].endswith("-> 广东省")
    assert not any(value in repr(found) for value in ("张伟", "科技园", "13812345678"))


def test_texts_of_nested_rows_make_the_round_trip() -> None:
    row = {"a": {"b": [{"c": "x"}, {"c": ["y", 5, True, None, 2.0]}, {}]}, "d": "z"}
    found = texts(row, ["a.b.c", "d"])
    assert [text for _, text in found] == ["x", "y", "5", "2", "z"]
    assert found[1][0] == "a.b[1].c[0]"
    assert with_texts(row, ["a.b.c", "d"], [text for _, text in found]) == row
    assert with_texts(row, ["a.b.c", "d"], ["1", "2", "3", "4", "5"])["a"]["b"][1]["c"] == ["2", "3", True, None, "4"]
    for wrong in (["x"], ["1"] * 6):
        with pytest.raises(ValueError, match="texts than the row has"):
            with_texts(row, ["a.b.c", "d"], wrong)
