"""What counts as missing is declared, what becomes of it too, and every case is counted."""

import json

import pytest
from pydantic import ValidationError

from metier.errors import SourceError
from metier.records import Drop
from metier.sources import MissingSettings, SourceSettings, read

ROWS = [
    {"问题": "头痛？", "答案": "休息。", "年龄": 30},
    {"问题": "咳嗽？", "答案": "无", "年龄": -99},
    {"问题": " ", "答案": "多喝水。", "年龄": None},
]


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")

    def make(**missing):
        written = {"path": "a.jsonl", "licence": "x", "columns": {"q": "问题", "a": "答案", "age": "年龄"}, "read": {"missing": missing}}
        return read([SourceSettings.model_validate_json(json.dumps(written))], tmp_path)

    return make


def test_by_default_null_and_blank_values_are_counted_and_nothing_else_is_touched(source):
    found = source()
    assert [record.metadata for record in found] == [{"q": row["问题"], "a": row["答案"], "age": row["年龄"]} for row in ROWS]
    assert found.register[0]["missing"] == {"问题": 1, "年龄": 1}


def test_declared_values_are_missing_and_kept_rows_have_them_empty(source):
    found = source(values=["无", -99])
    assert [record.metadata["a"] for record in found] == ["休息。", "", "多喝水。"]
    assert [record.metadata["age"] for record in found] == [30, "", None]
    assert found.register[0]["missing"] == {"问题": 1, "答案": 1, "年龄": 2}


def test_dropped_rows_go_to_the_ledger_with_the_column_and_are_not_malformed(source):
    found = source(values=["无"], policy="drop")
    items = list(found)
    assert [item.reason for item in items if isinstance(item, Drop)] == ["missing_value:答案", "missing_value:问题"]
    assert found.register[0]["malformed"] == 0
    assert found.register[0]["notes"] == {"missing_value_dropped": 2}


def test_a_column_may_have_a_policy_and_values_of_its_own(source):
    found = source(policy="keep", columns={"年龄": {"policy": "fill", "fill": 0, "values": [-99]}, "问题": {"policy": "drop"}})
    records = [item for item in found if not isinstance(item, Drop)]
    assert [record.metadata["age"] for record in records] == [30, 0]
    assert records[1].metadata["a"] == "无"
    assert found.register[0]["notes"] == {"missing_value_dropped": 1, "missing_value_filled": 1}


def test_the_policy_error_names_file_line_and_column_and_not_the_value(source):
    with pytest.raises(SourceError) as caught:
        list(source(values=["无"], policy="error"))
    (fault,) = caught.value.faults
    assert (fault.path, fault.line, fault.key) == ("a.jsonl", 2, "read.missing")
    assert "'答案'" in fault.what or "答案" in fault.what
    assert "无" not in fault.what


def test_a_policy_for_a_column_that_a_table_has_not_is_a_fault(tmp_path):
    (tmp_path / "a.csv").write_text("text,age\nx,1\n", encoding="utf-8")
    missing = {"columns": {"ages": {"policy": "drop"}}}
    with pytest.raises(SourceError, match="did you mean 'age'"):
        list(read([SourceSettings(path="a.csv", licence="x", read={"missing": missing})], tmp_path))


@pytest.mark.parametrize("values", [{"policy": "fill"}, {"fill": 1}, {"policy": "guess"}, {"columns": {"a": {"policy": "fill"}}}])
def test_policies_that_cannot_work_are_refused(values):
    with pytest.raises(ValidationError):
        MissingSettings(**values)
