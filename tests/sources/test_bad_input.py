"""Input as it really is: each case has a decided behaviour, said in the record, in the ledger or in an error."""

import json

import pytest

from metier.errors import SourceError
from metier.records import Drop
from metier.sources import SourceSettings, read

SECRET = "张三 13800138000"


def put(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def records(tmp_path, path="*", **values):
    return list(read([SourceSettings(path=path, licence="x", **values)], tmp_path))


def faults_of(tmp_path, path="*", **values):
    with pytest.raises(SourceError) as caught:
        records(tmp_path, path, **values)
    return caught.value.faults


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl", "a.csv"])
def test_two_encodings_in_one_file_name_the_line_where_the_second_begins(tmp_path, name):
    put(tmp_path, name, '{"text": "第一行是万国码"}\n'.encode() + '{"text": "第二行不是"}\n'.encode("gb18030"))
    (fault,) = faults_of(tmp_path)
    assert (fault.line, "neither UTF-8" in fault.what) == (2, True)
    assert "UTF-8" in fault.remedy


def test_a_line_of_ten_megabytes_is_one_row_and_one_document(tmp_path):
    line = "很长的一行" * 2_100_000
    put(tmp_path, "a.jsonl", json.dumps({"text": line}, ensure_ascii=False))
    put(tmp_path, "b.txt", line)
    found = records(tmp_path)
    assert [record.text == line for record in found] == [True, True]
    assert found[1].source.position == f"characters 0-{len(line)}"


def test_a_chunk_longer_than_asked_for_is_counted(tmp_path):
    put(tmp_path, "b.txt", "很长的一行" * 1000)
    source = read([SourceSettings(path="b.txt", licence="x")], tmp_path)
    assert len(list(source)) == 1
    assert source.register[0]["notes"] == {"longer_than_a_chunk": 1}


def test_nul_in_a_table_and_in_lines_is_a_drop_and_in_a_document_an_error(tmp_path):
    put(tmp_path, "a.csv", "text\nok\nb\0ad\n")
    put(tmp_path, "b.jsonl", '{"text": "ok"}\n{"text": "b\0ad"}\n')
    found = records(tmp_path, malformed=0.5)
    assert [item.reason.split(":")[0] for item in found if isinstance(item, Drop)] == ["nul_byte", "malformed_json"]
    put(tmp_path, "c.txt", "line\nb\0ad")
    fault = faults_of(tmp_path, "c.txt")[0]
    assert (fault.line, "NUL" in fault.what) == (2, True)


def test_rows_with_the_same_content_and_id_keep_ids_of_their_own(tmp_path):
    put(tmp_path, "a.jsonl", '{"text": "同", "id": 1}\n' * 3)
    found = records(tmp_path, columns={"id": "id"})
    assert len({record.id for record in found}) == 3
    assert [record.source.position for record in found] == ["line 1", "line 2", "line 3"]


def test_items_of_a_list_on_one_line_have_places_and_ids_of_their_own(tmp_path):
    put(tmp_path, "a.json", '[{"text": "同"}, {"text": "同"},\n{"text": "same"}, {"text": "同"}]')
    found = records(tmp_path)
    assert [record.source.position for record in found] == ["line 1", "line 1, item 2", "line 2", "line 2, item 2"]
    assert len({record.id for record in found}) == 4


@pytest.mark.parametrize(
    "text",
    ["مرحبا بالعالم. כמה טוב.", "\u202eright to left\u202c", "😀👨‍👩‍👧 🇨🇳", "……！？——。", "e\u0301 combining", "\u200b零宽\u200d字符", "\ufeffmark inside"],
    ids=["right-to-left", "override", "emoji", "punctuation", "combining", "zero-width", "mark"],
)
@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.jsonl"])
def test_odd_characters_reach_the_record_as_they_are(tmp_path, text, name):
    wrapped = {"a.html": f"<meta charset=utf-8><p>{text}</p>", "a.jsonl": json.dumps({"text": text}, ensure_ascii=False)}.get(name, f"x\n\n{text}\n\ny")
    put(tmp_path, name, wrapped)
    assert text in "\n".join(record.text for record in records(tmp_path))


def test_an_empty_file_is_refused_and_one_of_blanks_is_an_empty_document(tmp_path):
    put(tmp_path, "a.txt", "")
    assert "the file is empty" in faults_of(tmp_path)[0].what
    put(tmp_path, "a.txt", " \n\u3000\n")
    faults = faults_of(tmp_path)
    assert "empty_document" in faults[0].what
    put(tmp_path, "b.txt", "One.\n\n" * 3)
    found = records(tmp_path, malformed=0.5)
    assert [item.reason for item in found if isinstance(item, Drop)] == ["empty_document"]


def test_one_broken_document_among_many_is_a_drop_with_its_fault_at_hand(tmp_path):
    put(tmp_path, "a.pdf", "no pdf")
    put(tmp_path, "b.txt", "Good text.")
    found = records(tmp_path, malformed=0.5)
    assert [item.reason if isinstance(item, Drop) else item.text for item in found] == ["unreadable_document", "Good text."]
    faults = faults_of(tmp_path)
    assert "not a readable PDF" in faults[0].what
    assert faults[0].remedy


def test_a_page_of_html_in_gb18030_is_read_by_its_own_declaration(tmp_path):
    put(tmp_path, "a.html", '<html><meta charset="gb2312"><body><p>登记机关应当公开。\u3400</p></body></html>'.encode("gb18030"))
    source = read([SourceSettings(path="a.html", licence="x")], tmp_path)
    (record,) = source
    assert record.text == "登记机关应当公开。\u3400"
    assert (source.register[0]["encoding"], source.register[0]["encoding_reason"]) == ("gb18030", "declared")


def test_a_page_that_declares_what_it_is_not_is_told(tmp_path):
    put(tmp_path, "a.html", '<html><meta charset="big5"><body>登记机关，应当公开办事程序。</body></html>')
    (fault,) = faults_of(tmp_path)
    assert fault.remedy == "it decodes as UTF-8: write encoding: utf-8"
    assert records(tmp_path, encoding="utf-8")[0].text == "登记机关，应当公开办事程序。"


@pytest.mark.parametrize(("name", "data"), [("a.jsonl.zst", b"\x28\xb5\x2f\xfd broken"), ("a.txt.gz", b"\x1f\x8b broken"), ("a.csv.zst", b"plain")])
def test_a_damaged_compressed_file_is_told(tmp_path, name, data):
    put(tmp_path, name, data)
    assert "cut off" in faults_of(tmp_path)[0].remedy


def test_zst_files_are_read_as_what_is_inside(tmp_path):
    import pyarrow as pa

    for name, data in (("a.jsonl.zst", '{"text": "甲"}\n'), ("b.json.zst", '[{"text": "乙"}]'), ("c.csv.zst", "text\n丙\n"), ("d.txt.zst", "丁")):
        with pa.output_stream(str(tmp_path / name), compression="zstd") as stream:
            stream.write(data.encode())
    assert [record.text for record in records(tmp_path)] == ["甲", "乙", "丙", "丁"]


def test_a_compressed_office_file_is_refused(tmp_path):
    put(tmp_path, "a.xlsx.gz", b"\x1f\x8b")
    assert "unpack it" in faults_of(tmp_path)[0].remedy


def test_an_object_over_several_lines_is_one_row(tmp_path):
    put(tmp_path, "a.json", json.dumps({"text": "甲", "n": 1}, indent=2, ensure_ascii=False))
    (record,) = records(tmp_path)
    assert (record.text, record.source.position) == ("甲", "line 1")
    put(tmp_path, "a.json", '{"text": broken\n{"text": "乙"}\n')
    assert [isinstance(item, Drop) for item in records(tmp_path, malformed=0.5)] == [True, False]


def test_nothing_of_the_text_stands_in_an_error(tmp_path):
    put(tmp_path, "a.csv", f"text,n\n{SECRET},1\n{SECRET}\n")
    put(tmp_path, "b.jsonl", f'{{"text": "{SECRET}"\n')
    put(tmp_path, "c.html", f"<div>{SECRET}" * 300)
    put(tmp_path, "d.txt", f"{SECRET}\0")
    for name, values in (("a.csv", {}), ("b.jsonl", {}), ("c.html", {}), ("d.txt", {}), ("a.csv", {"read": {"missing": {"policy": "error"}}})):
        try:
            records(tmp_path, name, **values)
        except SourceError as error:
            assert "13800138000" not in str(error)
            assert "张三" not in str(error)
