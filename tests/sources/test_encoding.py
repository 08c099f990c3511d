"""Encodings are declared or decided by the whole file, never guessed, and the register says which and why."""

import pytest

from metier.errors import SourceError
from metier.sources import SourceSettings, read

COLUMNS = {"prompt": "question", "completion": "answer"}
QUESTION = "高血压可以喝茶吗？"


def settings(path="data/*", **values):
    return SourceSettings(path=path, licence="internal", **values)


def put(root, name, data):
    path = root / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def faults_of(root, *sources, **values):
    with pytest.raises(SourceError) as caught:
        list(read(sources or [settings(**values)], root))
    return caught.value.faults


@pytest.mark.parametrize(
    ("encoding", "used", "reason"),
    [
        ("utf-8", "utf-8", "detected: whole file decodes"),
        ("utf-8-sig", "utf-8-sig", "detected: UTF-8 byte order mark, whole file decodes"),
        ("gb18030", "gb18030", "detected: not UTF-8 (byte 16), whole file decodes as GB18030"),
    ],
)
def test_encodings_are_decided_by_the_whole_file_and_said(tmp_path, encoding, used, reason):
    put(tmp_path, "a.csv", "question,answer\n高血压可以喝茶吗？,可以，少量。\n".encode(encoding))
    source = read([settings(columns=COLUMNS)], tmp_path)
    (record,) = source
    assert record.messages[0].content == QUESTION
    assert (source.register[0]["encoding"], source.register[0]["encoding_reason"]) == (used, reason)


def test_gb18030_declared_as_utf8_names_line_byte_and_remedy(tmp_path):
    put(tmp_path, "a.csv", "question,answer\nplain,text\n高血压,可以\n".encode("gb18030"))
    (fault,) = faults_of(tmp_path, encoding="utf-8", columns=COLUMNS)
    assert (fault.path, fault.line) == ("data/a.csv", 3)
    assert "byte 27" in fault.what
    assert fault.remedy == "it decodes as GB18030: write encoding: gb18030"


def test_utf8_declared_as_gb18030_is_noticed_though_it_decodes(tmp_path):
    text = "question,answer\n" + "高血治疗可以,休息回答\n" * 4
    put(tmp_path, "a.csv", text)
    assert text.encode().decode("gb18030")
    (fault,) = faults_of(tmp_path, encoding="gb18030", columns=COLUMNS)
    assert "utf-8" in fault.remedy


@pytest.mark.parametrize("encoding", ["big5", "shift_jis"])
def test_another_encoding_is_not_taken_for_gb18030(tmp_path, encoding):
    put(tmp_path, "a.csv", ("question,answer\n" + "東京都高血圧治療,経過良好\n".replace("圧", "用").replace("経", "用") * 8).encode(encoding))
    (fault,) = faults_of(tmp_path, columns=COLUMNS)
    assert "neither UTF-8" in fault.what


def test_a_declared_encoding_is_used(tmp_path):
    put(tmp_path, "a.csv", "question,answer\n治療,良好\n".encode("big5"))
    put(tmp_path, "b.csv", "question,answer\n治療,良好\n".encode("utf-16"))
    found = list(read([settings("data/a.csv", encoding="big5", columns=COLUMNS), settings("data/b.csv", encoding="utf-16", columns=COLUMNS)], tmp_path))
    assert [record.messages[0].content for record in found] == ["治療", "治療"]


def test_utf16_without_declaration_names_the_remedy(tmp_path):
    put(tmp_path, "a.csv", "question,answer\n治療,良好\n".encode("utf-16"))
    (fault,) = faults_of(tmp_path, columns=COLUMNS)
    assert fault.remedy == "write encoding: utf-16"


def test_an_unknown_encoding_is_refused(tmp_path):
    put(tmp_path, "a.csv", "a\n")
    (fault,) = faults_of(tmp_path, encoding="utf-99")
    assert fault.key == "encoding"
