"""Well-known corpora are read by name from the user's own copy, each here from a small file in its true format."""

import csv
import gzip
import io
import json

import pytest

from metier import packs
from metier.errors import SourceError
from metier.packs import conformance
from metier.records import Drop
from metier.sources import SourceSettings, read

PACKS = {name: packs.load(name) for name in ("medical", "finance", "law")}
HOME = {corpus.name: pack for pack in PACKS.values() for corpus in pack.corpora}


def source(tmp_path, corpus, path="copy", **values):
    return read([SourceSettings(path=path, corpus=corpus, **values)], tmp_path, pack=HOME[corpus])


def put(tmp_path, name, data):
    path = tmp_path / "copy" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def table(*rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def test_every_named_corpus_is_known_to_one_pack():
    assert sorted(HOME) == ["cap", "cn-judgments", "cn-statutes", "cuad", "edgar", "medquad", "mimic-iii", "mimic-iv", "pubmedqa"]
    assert all(conformance.check(pack) == [] for pack in PACKS.values())


def test_an_unknown_corpus_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(SourceError, match="did you mean 'mimic-iii'"):
        read([SourceSettings(path="x", corpus="mimic-ii")], tmp_path, pack=PACKS["medical"])
    with pytest.raises(SourceError, match="no pack is given"):
        read([SourceSettings(path="x", corpus="cap")], tmp_path)


def test_notes_of_mimic_iii_keep_their_placeholders_and_errors_are_left_out(tmp_path):
    note = 'Admission Date:  [**2151-7-16**]\n\nThe patient, Mr. [**Known lastname 1234**], said "no".\n'
    row = {"ROW_ID": 174, "SUBJECT_ID": 22532, "HADM_ID": 167853, "CHARTDATE": "2151-08-04", "CHARTTIME": "", "STORETIME": "", "CATEGORY": "Discharge summary"}
    row |= {"DESCRIPTION": "Report", "CGID": "", "ISERROR": "", "TEXT": note}
    put(tmp_path, "NOTEEVENTS.csv", table(row, {**row, "ROW_ID": 175, "ISERROR": 1}))
    found = source(tmp_path, "mimic-iii")
    record, drop = found
    assert record.text == note
    assert (record.subject, record.time, record.language) == ("22532", "2151-08-04", "en")
    assert record.metadata == {"category": "Discharge summary", "description": "Report", "admission": "167853", "note": "174"}
    assert isinstance(drop, Drop)
    assert drop.reason == "left_out_by_corpus"
    (entry,) = found.register
    assert entry["licence"] == "PhysioNet Credentialed Health Data License 1.5.0"
    assert entry["corpus"]["access"] == "credentialed"
    assert entry["sensitive"]["TEXT"]["category"] == "health"
    assert entry["malformed"] == 0


def test_discharge_summaries_of_mimic_iv_are_read_compressed(tmp_path):
    row = {"note_id": "10000032-DS-21", "subject_id": 10000032, "hadm_id": 22595853, "note_type": "DS", "note_seq": 21, "charttime": "2180-05-07 00:00:00"}
    row |= {"storetime": "2180-05-09 15:26:00", "text": " \nName:  ___                     Unit No:   ___\n"}
    put(tmp_path, "note/discharge.csv.gz", gzip.compress(table(row).encode()))
    (record,) = source(tmp_path, "mimic-iv")
    assert record.text.count("___") == 2
    assert (record.subject, record.time) == ("10000032", "2180-05-07 00:00:00")
    assert record.metadata == {"note": "10000032-DS-21", "category": "DS", "sequence": "21", "admission": "22595853"}


def test_medquad_has_its_focus_and_page_and_drops_questions_without_an_answer(tmp_path):
    put(
        tmp_path,
        "1_CancerGov_QA/0000001_1.xml",
        '<?xml version="1.0" encoding="UTF-8"?>\n<Document id="0000001_1" source="CancerGov" url="https://example.org/a">\n<Focus>Gout</Focus>\n<QAPairs>\n'
        '<QAPair pid="1"><Question qid="1-1" qtype="information">What is gout?</Question><Answer>A form of\narthritis.</Answer></QAPair>\n'
        '<QAPair pid="2"><Question qid="1-2" qtype="causes">Why?</Question><Answer></Answer></QAPair></QAPairs></Document>',
    )
    record, drop = source(tmp_path, "medquad")
    assert record.metadata == {
        **{"question": "What is gout?", "answer": "A form of\narthritis.", "kind": "information", "focus": "Gout", "page": "https://example.org/a"},
        "collection": "CancerGov",
    }
    assert drop.reason == "missing_value:Answer"


def test_pubmedqa_is_keyed_by_abstract(tmp_path):
    row = {"QUESTION": "Does it?", "CONTEXTS": ["We asked.", "It did."], "LABELS": ["AIM", "RESULTS"], "MESHES": [], "YEAR": "2011", "LONG_ANSWER": "It does."}
    put(tmp_path, "ori_pqal.json", json.dumps({"21645374": {**row, "final_decision": "yes"}, "1": row | {"LABELS": []}, "2": row}, indent=1))
    found = list(source(tmp_path, "pubmedqa", malformed=0.5))
    assert found[0].metadata == {
        **{"question": "Does it?", "context": "AIM: We asked.\nRESULTS: It did.", "answer": "It does.", "year": "2011", "abstract": "21645374"}
    }
    assert (found[0].label, found[0].source.position) == ("yes", '["21645374"]')
    assert found[2].label is None


FILING = """<SEC-DOCUMENT>0000320193-23-000106.txt : 20231103
<SEC-HEADER>0000320193-23-000106.hdr.sgml : 20231102
<ACCEPTANCE-DATETIME>20231102180827
ACCESSION NUMBER:\t\t0000320193-23-000106
CONFORMED SUBMISSION TYPE:\t10-K
PUBLIC DOCUMENT COUNT:\t\t2
CONFORMED PERIOD OF REPORT:\t20230930
FILED AS OF DATE:\t\t20231103

FILER:

\tCOMPANY DATA:\t
\t\tCOMPANY CONFORMED NAME:\t\t\tExample Inc.
\t\tCENTRAL INDEX KEY:\t\t\t0000320193
</SEC-HEADER>
<DOCUMENT>
<TYPE>10-K
<SEQUENCE>1
<FILENAME>a.htm
<TEXT>
<XBRL><html><head><title>x</title></head><body><ix:header><p>hidden facts</p></ix:header><div>Annual report</div>
<table><tr><td>Item 1.</td><td>Business</td><td>3</td></tr><tr><td>Item&#160;1A.</td><td>Risk Factors</td><td>5</td></tr></table>
<div>Item 1. Business</div><p>We make things. LONG</p><div>Item 1A. Risk Factors</div><p>Things break.</p>
<table><tr><td>Sales</td><td>$</td><td>383,285</td></tr></table></body></html></XBRL>
</TEXT>
</DOCUMENT>
<DOCUMENT>
<TYPE>EX-99.1
<SEQUENCE>2
<FILENAME>b.txt
<TEXT>
Press release.
</TEXT>
</DOCUMENT>
<DOCUMENT>
<TYPE>GRAPHIC
<FILENAME>g.jpg
<TEXT>
begin 644 g.jpg
M_]C_X
</TEXT>
</DOCUMENT>
</SEC-DOCUMENT>
"""


def test_a_submission_of_edgar_gives_its_items(tmp_path):
    put(tmp_path, "sec-edgar-filings/0000320193/10-K/1/full-submission.txt", FILING.replace("LONG", "Good ones. " * 600))
    put(tmp_path, "readme.txt", "not a submission")
    found = list(source(tmp_path, "edgar"))
    records = [item for item in found if not isinstance(item, Drop)]
    assert [(item.metadata["document"], item.metadata["item"]) for item in records] == [
        *[("10-K", "front"), ("10-K", "1"), ("10-K", "1"), ("10-K", "1A"), ("EX-99.1", None)]
    ]
    assert [(item.metadata["part"], item.metadata["parts"]) for item in records[1:3]] == [(1, 2), (2, 2)]
    assert records[0].text == "Annual report\n\nItem 1. | Business | 3\n\nItem 1A. | Risk Factors | 5"
    assert records[3].text == "Item 1A. Risk Factors\n\nThings break.\n\nSales | $ | 383,285"
    first = records[0]
    assert (first.group, first.time, first.metadata["company"], first.metadata["period"]) == ("0000320193", "2023-11-03", "Example Inc.", "2023-09-30")
    assert [item.reason for item in found if isinstance(item, Drop)] == ["left_out_by_corpus"]
    assert len({item.source.position for item in records}) == len(records)


CASE = {
    **{"id": 1021505, "name": "Doe v. Roe", "name_abbreviation": "Doe v. Roe", "decision_date": "1969-01-13", "docket_number": "", "first_page": "1"},
    **{"citations": [{"type": "official", "cite": "1 Ill. App. 2"}], "court": {"name": "Illinois Appellate Court"}, "jurisdiction": {"name_long": "Illinois"}},
}
OPINIONS = [{"type": "majority", "author": "MORAN", "text": "Affirmed. " * 3}, {"type": "dissent", "author": None, "text": "I dissent."}]


@pytest.mark.parametrize("form", ["bulk", "static"])
def test_opinions_of_the_caselaw_access_project(tmp_path, form):
    if form == "bulk":
        rows = [
            {**CASE, "casebody": {"status": "ok", "data": {"head_matter": "x", "opinions": OPINIONS}}},
            {**CASE, "casebody": {"status": "no", "data": None}},
        ]
        put(tmp_path, "data/data.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    else:
        put(tmp_path, "ill-app/1/cases/0001-01.json", json.dumps({**CASE, "casebody": {"head_matter": "x", "opinions": OPINIONS}}, indent=2))
    found = list(source(tmp_path, "cap"))
    records = [item for item in found if not isinstance(item, Drop)]
    assert [(item.metadata["kind"], item.text) for item in records] == [("majority", "Affirmed. " * 3), ("dissent", "I dissent.")]
    assert [item.source.position for item in records] == ["line 1, part 1", "line 1, part 2"]
    assert (records[0].group, records[0].time, records[0].metadata["citation"]) == ("1021505", "1969-01-13", "1 Ill. App. 2")
    assert len(found) - len(records) == (form == "bulk")


def test_chinese_judgments_of_two_forms(tmp_path):
    rows = [
        {"案号": "（2020）某01民初1号", "案由": "民间借贷纠纷", "法院": "某市人民法院", "裁判日期": "2020-05-01", "全文": "本院认为，借款合同有效。"},
        {"fact": "被告人盗窃财物。", "meta": {"accusation": ["盗窃"], "relevant_articles": [264], "criminals": ["张某某"], "term_of_imprisonment": {}}},
        {"other": 1},
    ]
    put(tmp_path, "a.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    first, second, drop = source(tmp_path, "cn-judgments")
    assert (first.text, first.group, first.time, first.metadata["cause"]) == ("本院认为，借款合同有效。", "（2020）某01民初1号", "2020-05-01", "民间借贷纠纷")
    assert (second.text, second.metadata["charge"], second.metadata["articles"]) == ("被告人盗窃财物。", "盗窃", "264")
    assert "张某某" not in json.dumps(second.metadata, ensure_ascii=False)
    assert drop.reason == "left_out_by_corpus"


def test_cuad_gives_every_question_with_its_passage_in_whole_sentences(tmp_path):
    context = "Filler sentence one. " * 60 + "This Agreement shall be governed by the laws of Utah. " + "Filler sentence two. " * 60
    asked = {"question": 'Highlight the parts related to "Governing Law"', "is_impossible": False}
    answers = [{"text": "the laws of Utah", "answer_start": context.index("the laws of Utah")}]
    none = {"id": "X__Audit Rights", "question": "Highlight", "is_impossible": True, "answers": []}
    paragraph = {"context": context, "qas": [{"id": "X__Governing Law", **asked, "answers": answers}, none]}
    put(tmp_path, "CUADv1.json", json.dumps({"version": "aok_v1.0", "data": [{"title": "X", "paragraphs": [paragraph]}]}))
    first, second = source(tmp_path, "cuad")
    assert (first.metadata["category"], first.metadata["answer"], first.label, first.group) == ("Governing Law", "the laws of Utah", "yes", "X")
    assert "governed by the laws of Utah." in first.metadata["passage"]
    assert first.metadata["passage"].startswith("Filler")
    assert first.metadata["passage"].endswith(".")
    assert len(first.metadata["passage"]) < 1300
    assert (second.label, second.metadata["answer"]) == ("no", "")


def test_chinese_statutes_give_one_record_an_article(tmp_path):
    put(
        tmp_path,
        "民法/甲法.md",
        "# 甲法\n\n2020年1月1日通过\n\n<!-- INFO END -->\n\n## 第一章 总则\n\n第一条 立法目的。\n\n第二条 范围：\n\n（一）甲；\n\n（二）乙。\n\n"
        "## 第二章 附则\n\n第二条之一 补充。\n",
    )
    found = list(source(tmp_path, "cn-statutes"))
    assert [item.metadata["article"] for item in found] == [None, "第一条", "第二条", "第二条之一"]
    assert found[2].text == "第二条 范围：\n\n（一）甲；\n\n（二）乙。"
    assert found[3].metadata["section"] == ["甲法", "第二章 附则"]
    assert (found[3].metadata["title"], found[3].language) == ("甲法", "zh")
    assert found[3].source.position.startswith("section 1.2, article 第二条之一, characters ")


def test_what_the_source_says_goes_before_what_the_corpus_says(tmp_path):
    put(tmp_path, "甲法.md", "# 甲法\n\n第一条 甲。\n")
    found = source(tmp_path, "cn-statutes", "copy/*.md", licence="internal", columns={"law": "title"}, language="en")
    records = list(found)
    assert (records[-1].source.licence, records[-1].language, records[-1].metadata["law"]) == ("internal", "en", "甲法")
    assert found.register[0]["corpus"]["name"] == "cn-statutes"


def test_a_file_that_is_not_of_the_corpus_is_told(tmp_path):
    put(tmp_path, "CUADv1.json", json.dumps({"rows": []}))
    with pytest.raises(SourceError, match="no part 'data'"):
        list(source(tmp_path, "cuad"))
    put(tmp_path, "CUADv1.json", json.dumps({"data": [{"title": "X"}]}))
    with pytest.raises(SourceError, match="not_of_the_corpus:KeyError"):
        list(source(tmp_path, "cuad"))


def test_the_digest_knows_the_pack_that_reads_a_corpus(tmp_path):
    put(tmp_path, "a.jsonl", json.dumps({"全文": "甲"}, ensure_ascii=False))
    by_name = source(tmp_path, "cn-judgments").digest
    plain = read([SourceSettings(path="copy/a.jsonl", licence="x", columns={"text": "全文"})], tmp_path).digest
    assert by_name != plain
    assert by_name == source(tmp_path, "cn-judgments").digest
