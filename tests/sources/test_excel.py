"""Workbooks are read as they last showed their values; sheets, dates, formulas, merged and hidden cells are decided and said."""

import json
import re
import zipfile
from datetime import date, datetime, time

import openpyxl
import pytest

from metier.errors import SourceError
from metier.records import Drop
from metier.sources import SourceSettings, read

COLUMNS = {"question": "问题", "answer": "答案"}


def settings(**values):
    return SourceSettings.model_validate_json(json.dumps({"path": "*.xlsx", "licence": "internal", "columns": COLUMNS, **values}))


def book(tmp_path, build, name="a.xlsx"):
    made = openpyxl.Workbook()
    made.active.title = "访视"
    build(made.active)
    made.save(tmp_path / name)
    return tmp_path / name


def rows(*values):
    def build(sheet):
        for row in values:
            sheet.append(row)

    return build


def faults_of(tmp_path, **values):
    with pytest.raises(SourceError) as caught:
        list(read([settings(**values)], tmp_path))
    return caught.value.faults


def test_rows_know_their_sheet_and_number_and_values_keep_their_kind(tmp_path):
    book(
        tmp_path,
        rows(
            ["问题", "答案", "day", "at", "moment", "n", "x", "yes"],
            [],
            ["头痛？", "休息。", date(2024, 3, 1), datetime(2024, 3, 1, 8, 30), time(8, 30), 3.0, 0.25, True],
        ),
    )
    columns = {**COLUMNS, "at": "at", "moment": "moment", "n": "n", "x": "x", "yes": "yes"}
    source = read([settings(columns=columns, time="day")], tmp_path)
    (record,) = source
    assert record.source.position == "sheet 访视, row 3"
    assert record.time == "2024-03-01"
    assert record.metadata == {"question": "头痛？", "answer": "休息。", "at": "2024-03-01T08:30:00", "moment": "08:30:00", "n": 3, "x": 0.25, "yes": True}
    assert source.register[0]["format"] == "excel, fields"


def test_sheets_are_named_or_all_and_never_guessed(tmp_path):
    made = openpyxl.Workbook()
    for title in ("甲", "乙", "丙"):
        sheet = made.create_sheet(title)
        sheet.append(["问题", "答案"])
        sheet.append([title, "x"])
    del made["Sheet"]
    made["丙"].sheet_state = "hidden"
    made.save(tmp_path / "a.xlsx")
    (fault,) = faults_of(tmp_path)
    assert ("2 visible sheets: '甲', '乙'" in fault.what, fault.key) == (True, "read.sheets")
    assert [record.metadata["question"] for record in read([settings(read={"sheets": ["*"]})], tmp_path)] == ["甲", "乙"]
    assert [record.metadata["question"] for record in read([settings(read={"sheets": ["丙"]})], tmp_path)] == ["丙"]
    (fault,) = faults_of(tmp_path, read={"sheets": ["甲1"]})
    assert fault.remedy == "did you mean '甲'?" or "valid" in fault.remedy


def test_a_formula_gives_its_stored_value_and_without_one_the_row_is_malformed(tmp_path):
    path = book(tmp_path, rows(["问题", "答案"], ["a", "=1+1"], ["b", "text"], ["c", "text"]))
    (drop, *others) = list(read([settings(malformed=0.5)], tmp_path))
    assert (drop.reason, len(others)) == ("formula_without_value:B2", 2)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/worksheets/sheet1.xml"] = re.sub(rb"<f>1\+1</f><v\s*/>|<f>1\+1</f><v></v>", b"<f>1+1</f><v>2</v>", parts["xl/worksheets/sheet1.xml"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    assert next(iter(read([settings()], tmp_path))).metadata["answer"] == 2


def test_an_error_value_is_malformed_unless_it_is_declared_as_missing(tmp_path):
    def build(sheet):
        rows(["问题", "答案"], ["a", "#N/A"], ["b", "x"])(sheet)
        sheet["B2"].data_type = "e"

    book(tmp_path, build)
    found = list(read([settings(malformed=0.5)], tmp_path))
    assert [item.reason for item in found if isinstance(item, Drop)] == ["cell_error:B2"]
    source = read([settings(read={"missing": {"values": ["#N/A"]}})], tmp_path)
    assert [record.metadata["answer"] for record in source] == ["", "x"]
    assert source.register[0]["missing"] == {"答案": 1}


def test_a_merged_cell_holds_for_every_row_it_covers_and_is_counted(tmp_path):
    def build(sheet):
        rows(["问题", "答案"], ["a", "1"], [None, "2"], ["b", "3"])(sheet)
        sheet.merge_cells("A2:A3")

    book(tmp_path, build)
    source = read([settings()], tmp_path)
    assert [record.metadata["question"] for record in source] == ["a", "a", "b"]
    assert source.register[0]["notes"] == {"merged_ranges": 1}


def test_hidden_rows_are_read_and_counted_or_dropped_with_a_reason(tmp_path):
    def build(sheet):
        rows(["问题", "答案"], ["a", "1"], ["b", "2"])(sheet)
        sheet.row_dimensions[3].hidden = True
        sheet.column_dimensions["B"].hidden = True

    book(tmp_path, build)
    source = read([settings()], tmp_path)
    assert len(list(source)) == 2
    assert source.register[0]["notes"] == {"hidden_columns": 1, "hidden_rows": 1}
    source = read([settings(read={"hidden": "drop"})], tmp_path)
    assert [item.reason for item in source if isinstance(item, Drop)] == ["hidden_row"]
    assert source.register[0]["malformed"] == 0


def test_the_header_may_stand_below_a_title(tmp_path):
    book(tmp_path, rows(["2024 年访视", None], ["问题", "答案"], ["a", "b"]))
    (record,) = read([settings(read={"header": 2})], tmp_path)
    assert record.metadata == {"question": "a", "answer": "b"}


def test_a_value_under_no_name_is_not_lost_silently(tmp_path):
    book(tmp_path, rows(["问题", "答案"], ["a", "b", "note"], ["c", "d"]))
    found = list(read([settings(malformed=0.5)], tmp_path))
    assert found[0].reason == "value_without_column:column 3"
    assert "note" in found[0].content


def test_a_column_named_twice_and_a_missing_one_are_faults(tmp_path):
    book(tmp_path, rows(["问题", "问题"], ["a", "b"]))
    assert "more than once" in faults_of(tmp_path)[0].what
    book(tmp_path, rows(["问题", "答 案"], ["a", "b"]))
    assert "no column '答案'" in faults_of(tmp_path)[0].what


@pytest.mark.parametrize("data", [b"no workbook", b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600])
def test_what_is_no_workbook_is_refused_with_a_remedy(tmp_path, data):
    (tmp_path / "a.xlsx").write_bytes(data)
    assert faults_of(tmp_path)[0].remedy


def test_an_archive_that_is_no_workbook_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("x", "x")
    assert "not a readable workbook" in faults_of(tmp_path)[0].what
