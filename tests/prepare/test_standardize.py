"""Standard terms: longest match with borders, negation, units, abbreviations, user lexicons; digits stay, twice is once."""

import dataclasses
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_of_prepare import chat, pack, row
from metier import packs
from metier.errors import InputError
from metier.packs.spec import OnDemand, Term
from metier.prepare.standardize import TERMS, StandardizeSettings, compile_lexicon, lexicon_of, mentions, read_lexicons, standardize, write_units

ANNOTATE, REPLACE = StandardizeSettings(), StandardizeSettings(mode="replace")


def term(code, en, zh, *variants):
    return Term(code=code, system="S", preferred={"en": en, "zh": zh}, variants=variants)


TERMS_OF_TEST = (
    term("A1", "chronic obstructive pulmonary disease", "慢性阻塞性肺疾病", "COPD", "慢阻肺"),
    term("A2", "type 2 diabetes mellitus", "2型糖尿病", "type 2 diabetes", "二型糖尿病", "adult-onset diabetes"),
    term("A3", "hypertension", "原发性高血压", "high blood pressure", "高血压", "HTN"),
    term("A4", "cerebral infarction", "脑梗死", "stroke", "中风", "脑卒中"),
    term("A5", "myocardial infarction", "心肌梗死", "heart attack", "心梗", "MI"),
    term("A6", "mitral insufficiency", "二尖瓣关闭不全", "MI"),
    term("A7", "pneumonia", "肺炎"),
    term("A8", "viral pneumonia", "病毒性肺炎"),
    term("A9", "unstable angina", "不稳定型心绞痛"),
    term("B1", "fever", "发热", "发烧"),
    term("B2", "cough", "咳嗽"),
    term("B3", "COVID-19", "新型冠状病毒感染", "新冠"),
)
LEXICON = compile_lexicon([TERMS_OF_TEST])


def found(text, language=None, settings=ANNOTATE):
    return [(item["surface"], item["code"], item["negated"]) for item in mentions(text, LEXICON, settings, language)]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("病毒性肺炎，肺炎", ["A8", "A7"]),
        ("viral pneumonia and pneumonia", ["A8", "A7"]),
        ("bradystroke strokes, heatstroke, stroke", ["A4", "A4"]),
        ("患者有COPD史，COPDX无关", ["A1"]),
        ("２型糖尿病，12型糖尿病", ["A2"]),
        ("集中风险，突发中风", ["A4"]),
        ("ＨＴＮ和 Heart Attack", ["A3", "A5"]),
        ("MI 待查", []),
        ("", []),
        ("。，！", []),
    ],
)
def test_the_longest_name_is_found_between_its_borders(text, codes):
    assert [code for _, code, _ in found(text)] == codes


@pytest.mark.parametrize(
    ("text", "negated"),
    [
        ("否认高血压、2型糖尿病及中风病史，有慢阻肺", [True, True, True, False]),
        ("否认高血压，中风，慢阻肺", [True, True, True]),
        ("无发热、咳嗽，诊断为肺炎", [True, True, False]),
        ("无发热，咳嗽两天", [True, False]),
        ("肺炎可排除", [True]),
        ("不能排除肺炎", [False]),
        ("是不是肺炎？有没有发热？", [False, False]),
        ("无明显诱因出现咳嗽", [False]),
        ("不发热，不稳定型心绞痛", [True, False]),
        ("没有发热但是咳嗽", [True, False]),
        ("未见肺炎。咳嗽", [True, False]),
        ("不仅发热，还咳嗽", [False, False]),
        ("denies hypertension, stroke and cough but has pneumonia", [True, True, True, False]),
        ("No fever or cough. Pneumonia", [True, True, False]),
        ("without fever; cough present", [True, False]),
        ("pneumonia was ruled out, fever persists", [True, False]),
        ("cannot rule out pneumonia", [False]),
        ("not only fever", [False]),
        ("No one in the long corridor of that old building had a fever", [False]),
        ("knowledge of fever, notable cough", [False, False]),
    ],
)
def test_denied_mentions_are_marked(text, negated):
    assert [flag for _, _, flag in found(text)] == negated
    assert not any(flag for _, _, flag in found(text, settings=StandardizeSettings(negation=False)))


def test_annotating_leaves_the_text_and_keeps_surface_offsets_code_and_section():
    text = "【既往史】\n高血压10年，否认中风。\n【现病史】\n慢阻肺加重3天"
    record, notes = standardize(row(1, text=text, language="zh", metadata={"title": "发烧"}), ANNOTATE, LEXICON)
    assert record.text == text
    assert notes == ("standardize:negated=1", "standardize:terms=4")
    first = record.metadata[TERMS][0]
    assert first == {
        "field": "text", "surface": "高血压", "preferred": "原发性高血压", "code": "A3", "system": "S", "start": 6, "end": 9,
        "negated": False, "section": "既往史",
    }  # fmt: skip
    assert [item.get("section") for item in record.metadata[TERMS]] == ["既往史", "既往史", "现病史", None]
    assert record.metadata[TERMS][3]["field"] == "metadata.title"
    for item in record.metadata[TERMS][:3]:
        assert text[item["start"] : item["end"]] == item["surface"]


@pytest.mark.parametrize(
    ("text", "language", "after"),
    [
        ("心梗，慢阻肺10年", "zh", "心肌梗死，慢性阻塞性肺疾病10年"),
        ("COPD 3年，COPD 加重", "zh", "慢性阻塞性肺疾病（COPD） 3年，COPD 加重"),
        ("COPD for 3 years. COPD again.", "en", "chronic obstructive pulmonary disease (COPD) for 3 years. COPD again."),
        ("chronic obstructive pulmonary disease (COPD), COPD", "en", "chronic obstructive pulmonary disease (COPD), COPD"),
        ("MI in 2019", "en", "MI in 2019"),
        ("否认心梗", "zh", "否认心梗"),
        ("二型糖尿病，新冠", "zh", "二型糖尿病，新型冠状病毒感染"),
        ("血压140毫米汞柱，口服5 毫克，肌酐80微摩尔/升", "zh", "血压140mmHg，口服5 mg，肌酐80μmol/L"),
        ("a heart attack after a stroke", "en", "a myocardial infarction after a cerebral infarction"),
    ],
)
def test_replacing_writes_preferred_terms_and_expands_abbreviations_at_first_use(text, language, after):
    record, _ = standardize(chat(1, text, "好", language=language), REPLACE, LEXICON)
    assert record.messages[0].content == after
    for item in record.metadata.get(TERMS, ()):
        shown = after[item["start"] : item["end"]]
        assert shown in (item["preferred"], item["surface"]) or shown.casefold() == item["preferred"].casefold()
    assert standardize(record, REPLACE, LEXICON)[0] == record


def test_ambiguous_names_stay_and_are_counted():
    record, notes = standardize(row(1, text="MI and cough", language="en"), REPLACE, LEXICON)
    assert (record.text, notes) == ("MI and cough", ("standardize:ambiguous=1", "standardize:terms=1"))


PIECES = st.lists(
    st.sampled_from(
        [*(name for one in TERMS_OF_TEST for name in (*one.preferred.values(), *one.variants)), "否认", "无", "no ", "but ",
          "，", "。", ", ", " ", "5毫克", "140/90 mm Hg", "12", "３６.5°C", "(", "）", "s", "型"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


def test_a_unit_that_a_replaced_term_sets_free_is_written_in_the_same_pass():
    once, _ = standardize(row(1, text="5毫克cough，5毫克stroke", language="zh"), REPLACE, LEXICON)
    assert once.text == "5mg咳嗽，5mg脑梗死"
    assert [(item["surface"], once.text[item["start"] : item["end"]]) for item in once.metadata[TERMS]] == [("cough", "咳嗽"), ("stroke", "脑梗死")]
    assert standardize(once, REPLACE, LEXICON)[0] == once


@settings(deadline=None)
@given(PIECES, st.sampled_from(["zh", "en", None]))
def test_digits_stay_and_doing_it_twice_is_doing_it_once(text, language):
    record = row(1, text=text, language=language)
    for chosen in (ANNOTATE, REPLACE):
        once, _ = standardize(record, chosen, LEXICON)
        assert re.findall(r"\d", once.text) == re.findall(r"\d", text)
        assert standardize(once, chosen, LEXICON)[0] == once
        assert all(0 <= item["start"] < item["end"] <= len(once.text) for item in once.metadata.get(TERMS, ()))
    assert standardize(record, ANNOTATE, LEXICON)[0].text == text


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_searched_without_an_error(text):
    once, _ = standardize(row(1, text=text), REPLACE, LEXICON)
    assert standardize(once, REPLACE, LEXICON)[0] == once


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        ("140毫米汞柱", "140mmHg", 1),
        ("5 milligrams, 5mcg", "5 mg, 5μg", 2),
        ("36.5°C 36.5 摄氏度", "36.5℃ 36.5 ℃", 2),
        ("毫克数不明，5毫克/分钟", "毫克数不明，5mg/min", 1),
        ("5毫克/片", "5毫克/片", 0),
        ("5 mg", "5 mg", 0),
        ("10²ml", "10²ml", 0),
        ("x5mlk", "x5mlk", 0),
    ],
)
def test_units_change_their_writing_only(before, after, count):
    assert write_units(before) == (after, count)
    assert write_units(after) == (after, 0)


def test_a_lexicon_of_the_user_wins_over_the_pack(tmp_path):
    (tmp_path / "own.csv").write_text("code,system,preferred,variants\nX1,own,上呼吸道感染,感冒|伤风\nX2,own,高血压病,高血压\n", encoding="utf-8-sig")
    (tmp_path / "own.yaml").write_text("lexicon:\n  - {code: X3, system: own, preferred: {en: cough}, variants: [tussis]}\n", encoding="utf-8")
    rules = dataclasses.replace(
        pack(), lexicon=TERMS_OF_TEST, on_demand=OnDemand(lexicons={"big": lambda: iter([term("Z1", "rash", "皮疹"), term("Z2", "cough", "咳")])})
    )
    settings = StandardizeSettings(lexicons=("own.csv", "own.yaml"), systems=("big",))
    lexicon = lexicon_of(rules, settings, tmp_path)
    assert [(item["code"], item["preferred"]) for item in mentions("感冒，高血压，tussis, cough, rash, 心梗", lexicon, settings, "zh")] == [
        ("X1", "上呼吸道感染"), ("X2", "高血压病"), ("X3", "cough"), ("X3", "cough"), ("Z1", "皮疹"), ("A5", "心肌梗死"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="did you mean 'big'"):
        lexicon_of(rules, StandardizeSettings(systems=("bigg",)), tmp_path)


def test_every_fault_of_a_lexicon_is_reported_with_its_line(tmp_path):
    one, two, three = tmp_path / "one.csv", tmp_path / "two.csv", tmp_path / "three.csv"
    one.write_text("code,preferred,variants\nA,甲病,乙病\nB,乙病,甲病\nC,,丙\nD,丁病,甲病\n", encoding="utf-8")
    two.write_text("code,prefered\nA,x\n", encoding="utf-8")
    three.write_bytes("code,preferred\nA,高\n".encode("gb18030"))
    with pytest.raises(InputError) as caught:
        read_lexicons([one, two, three, tmp_path / "four.csv", tmp_path / "five.docx"])
    said = [(str(fault.path).rsplit("/", 1)[1], fault.line, fault.what) for fault in caught.value.faults]
    assert ("one.csv", 4, "the row has no preferred") in said
    assert any(place == ("one.csv", 3) and "in a circle" in what for *place, what in said for place in [tuple(place)])
    assert any(line == 5 and "belongs to A (one.csv:2) and to D" in what for _, line, what in said)
    assert ("two.csv", 1, "there is no column 'prefered' in a lexicon") in said
    assert ("two.csv", 1, "the column 'preferred' is missing") in said
    assert any(name == "three.csv" and "not UTF-8" in what for name, _, what in said)
    assert any(name == "four.csv" for name, _, _ in said)
    assert any(name == "five.docx" and "a lexicon is" in what for name, _, what in said)


def test_a_text_of_ten_megabytes_is_searched_in_time():
    text = "患者高血压，否认中风。No fever or cough. " * 250_000
    started = time.perf_counter()
    assert len(LEXICON.matches(text)) == 1_000_000
    assert time.perf_counter() - started < 60


def test_the_classification_is_a_lexicon_of_the_pack(tmp_path):
    pytest.importorskip("simple_icd_10_cm")
    settings = StandardizeSettings(systems=("icd-10-cm",))
    lexicon = lexicon_of(packs.load("medical"), settings, tmp_path)
    assert lexicon.size > 30_000
    codes = {item["surface"]: (item["code"], item["system"]) for item in mentions("Typhoid fever and hypertension; no celiac disease", lexicon, settings, "en")}
    assert codes["Typhoid fever"] == ("A01.0", "ICD-10-CM")
    assert codes["hypertension"] == ("I10", "ICD-10-CM")
