"""Public corpora as they are published are read whole, with the encoding, counts and turns that they really have."""

import os
import tarfile
from pathlib import Path

import pytest

from corpus_of_prepare import pack, template
from metier.errors import SourceError
from metier.prepare import PrepareSettings, build
from metier.records import Drop
from metier.sources import SourceSettings, read
from metier.store import Store

ROOT = os.environ.get("METIER_ACCEPTANCE_DATA", "")
pytestmark = [pytest.mark.acceptance, pytest.mark.skipif(not ROOT, reason="METIER_ACCEPTANCE_DATA names no folder of real corpora")]
DATA = Path(ROOT)
DIALOGUE = {"department": "department", "title": "title", "ask": "ask", "answer": "answer"}


def settings(path, **values):
    return SourceSettings(path=str(DATA / path), licence="as published", **values)


def test_a_gb18030_table_of_questions_is_read_without_a_word_about_its_encoding():
    source = read([settings("medical/toyhom-im-sample/*.csv", columns=DIALOGUE)], DATA)
    records = list(source)
    assert len(records) == 7644
    assert records[0].metadata["department"] == "心血管科"
    assert records[0].metadata["title"] == "高血压患者能吃党参吗？"
    assert source.register[0]["encoding"] == "gb18030"
    assert "whole file decodes as GB18030" in source.register[0]["encoding_reason"]


def test_the_same_table_declared_as_utf8_names_the_remedy():
    with pytest.raises(SourceError) as caught:
        read([settings("medical/toyhom-im-sample/*.csv", columns=DIALOGUE, encoding="utf-8")], DATA)
    (fault,) = caught.value.faults
    assert (fault.line, fault.remedy) == (2, "it decodes as GB18030: write encoding: gb18030")


def test_a_json_list_with_chinese_keys_and_nan_is_read():
    records = list(read([settings("law/lecoqa/train.json", columns={"prompt": "问题", "completion": "答案文本"})], DATA))
    assert len(records) == 1234
    assert records[0].messages[0].content == "合伙必须要签订书面合同吗？"


def test_question_pairs_in_xml_are_read_from_their_tar(tmp_path):
    with tarfile.open(DATA / "medical/medquad/1_CancerGov_QA.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    columns = {"prompt": "Question", "completion": "Answer", "kind": "Question@qtype", "pid": "@pid"}
    source = read([SourceSettings(path="1_CancerGov_QA/*.xml", licence="as published", rows="QAPair", columns=columns)], tmp_path)
    records = list(source)
    assert (len(source.register), len(records)) == (116, 729)
    assert records[0].messages[0].content == "What is (are) Adult Acute Lymphoblastic Leukemia ?"
    assert records[0].metadata == {"kind": "information", "pid": "1"}


def test_conversations_with_history_are_read_and_rows_without_a_question_are_drops():
    items = list(read([settings("medical/zhongjing/CMtMedQA_test.json", malformed=0.2)], DATA))
    drops = [item for item in items if isinstance(item, Drop)]
    assert (len(items), len(drops)) == (1144, 144)
    assert {drop.reason for drop in drops} == {"missing_key:instruction"}
    assert [message.learn for message in items[0].messages[:2]] == [False, True]
    assert len(items[0].messages) > 2


def test_tables_with_a_byte_order_mark_have_a_clean_first_column():
    source = read([settings("finance/fin-eva/**/*.csv", columns={"id": "id", "ask": "question", "answer": "answer"})], DATA)
    assert len(list(source)) == 6826
    assert {entry["encoding"] for entry in source.register} == {"utf-8-sig"}


def test_a_dataset_of_two_languages_is_built_without_leaks(tmp_path):
    with tarfile.open(DATA / "medical/medquad/1_CancerGov_QA.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    sources = [
        SourceSettings(path="1_CancerGov_QA/*.xml", licence="CC BY 4.0", rows="QAPair", columns={"prompt": "Question", "completion": "Answer"}),
        settings("medical/toyhom-im-sample/*.csv", columns=DIALOGUE),
    ]
    rules = pack(templates=(template("qa", "zh", ("ask", "answer"), "{{title}}\n{{ask}}", "{{answer}}"),))
    dataset = build(read(sources, tmp_path), rules, PrepareSettings(), ["zh", "en"], workspace=Store(tmp_path / ".metier").workspace("k"))
    # 378 are known. Surrogates come from the project's own secret: now and then one looks like a value to the second search, and its row leaves.
    aside = dataset.facts["drops"].get("deidentify_failed", 0)
    assert dataset.facts["drops"]["exact_duplicate"] >= 378 - 1 - aside, dataset.facts["drops"]
    assert aside <= 0.002 * dataset.facts["rows"]
    assert {kind: found["shared"] for kind, found in dataset.facts["disjoint"].items() if kind != "prompt"} == dict.fromkeys(
        ("cluster", "group", "record", "text"), 0
    )
    assert set(dataset.facts["counts"]["language"]) == {"zh", "en"}
    share = dataset.facts["counts"]["split"]["test"] / dataset.facts["records"]
    assert 0.09 < share < 0.11
