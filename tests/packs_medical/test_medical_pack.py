from pathlib import Path

import pytest
import simple_icd_10_cm as icd

from metier.evaluation.scorers import metric_faults
from metier.packs import load
from metier.packs.conformance import check
from metier.packs.matching import guard_finds, quality_reason
from metier.packs.render import render
from metier.privacy import Surrogates, deidentify_texts, rules_of
from metier_medical.parsing import consultation, icd_code
from metier_medical.scoring import category_match, department_match, urgency_match, valid_format

PACK = load("medical")
ANSWER = '{"科室": "心脏科", "建议": "做心电图", "紧急程度": "紧急"}'


def found(text: str, language: str) -> tuple[str, list[tuple[str, str]]]:
    identifiers, validators = rules_of(PACK)
    result = deidentify_texts([text], identifiers=identifiers, validators=validators, language=language, surrogates=Surrogates(b"k" * 32), subject="s")
    return result.texts[0], [(span.type, span.text) for span in result.spans[0]]


def test_the_pack_conforms_and_evaluation_knows_its_metrics() -> None:
    assert check(PACK) == []
    assert [fault for task in PACK.tasks for fault in metric_faults(task, PACK, Path("evaluation.yaml"))] == []


def test_every_code_of_the_lexicon_is_a_billable_code_of_the_classification() -> None:
    assert len(PACK.lexicon) >= 200
    assert [term.code for term in PACK.lexicon if not (icd.is_valid_item(term.code) and icd.is_leaf(term.code))] == []


def test_a_chinese_record_loses_its_identifiers_and_keeps_its_findings() -> None:
    text = "患者张伟，男，93岁，住院号：A2023-0456，2022年3月1日因胸痛2小时入院，血压120/80 mmHg，阿司匹林100 mg每日1次。主治医师：王建国。"
    output, spans = found(text, "zh")
    assert spans == [
        ("PERSON", "张伟"),
        ("AGE_OVER_89", "93"),
        ("MEDICAL_RECORD_NUMBER", "A2023-0456"),
        ("DATE", "2022年3月1日"),
        ("PERSON", "王建国"),
    ]
    assert "，90岁，" in output
    assert "因胸痛2小时入院，血压120/80 mmHg，阿司匹林100 mg每日1次。" in output
    assert not any(value in output for value in ("张伟", "A2023-0456", "2022年3月1日", "王建国"))


def test_an_english_record_loses_its_identifiers_and_keeps_its_findings() -> None:
    text = "Patient: Jane Doe, MRN: 1234567, a 95-year-old woman, seen on 03/01/2022 by Dr. Robert O'Neil. Ms. Doe takes aspirin 81 mg, BP 120/80."
    output, spans = found(text, "en")
    assert spans == [
        ("PERSON", "Jane Doe"),
        ("MEDICAL_RECORD_NUMBER", "1234567"),
        ("AGE_OVER_89", "95"),
        ("DATE", "03/01/2022"),
        ("PERSON", "Robert O'Neil"),
        ("PERSON", "Doe"),
    ]
    assert "a 90-year-old woman" in output
    assert output.endswith("takes aspirin 81 mg, BP 120/80.")


@pytest.mark.parametrize("text", ["患者高血压病史十年", "患者黄疸三天，尿黄", "患儿发热39.2℃", "病人严重贫血", "每日3次，每次1/2片", "CT示右肺结节8 mm"])
def test_clinical_words_are_no_identifiers(text: str) -> None:
    assert found(text, "zh") == (text, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (ANSWER, ("心脏科", "做心电图", "紧急")),
        ('Here: {"department": "Cardiology", "advice": " ECG ", "urgency": "urgent", "extra": 1} done', ("Cardiology", "ECG", "urgent")),
    ],
)
def test_consultations_are_read_in_both_languages(text: str, value: tuple[str, str, str]) -> None:
    assert consultation(text) == dict(zip(("department", "advice", "urgency"), value, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "心脏科",
        '{"科室": "心脏科"}',
        '{"科室": "", "建议": "a", "紧急程度": "b"}',
        '{"科室": 1, "建议": "a", "紧急程度": "b"}',
        '{"科室": "心',
        "[1]",
        "{" * 5000,
    ],
)
def test_what_is_no_consultation_is_none(text: str) -> None:
    assert consultation(text) is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("I10", "I10"),
        ("编码是j45.909。", "J45.909"),
        ("Code: E119", "E11.9"),
        ("Ｉ４８．９１", "I48.91"),
        ("I48.91, then I10", "I48.91"),
        ("心房颤动", None),
        ("BP 120", None),
        ("COVID19X12345", None),
    ],
)
def test_the_first_code_is_read(text: str, code: str | None) -> None:
    assert icd_code(text) == code


def test_every_code_of_the_lexicon_is_read_back() -> None:
    assert [term.code for term in PACK.lexicon if icd_code(f"答案：{term.code}。") != term.code] == []


def test_scores_compare_with_the_target() -> None:
    assert category_match("E11.65", {"target": "E11.9"}) == 1.0
    assert category_match("E10.9", {"target": "E11.9"}) == 0.0
    assert category_match("糖尿病", {"target": "E11.9"}) == 0.0
    assert department_match(ANSWER, {"target": ANSWER.replace('紧急"}', '一般"}')}) == 1.0
    assert urgency_match(ANSWER, {"target": ANSWER.replace('"紧急"}', '"一般"}')}) == 0.0
    assert valid_format("心脏科", {"target": ANSWER}) == 0.0
    assert valid_format(ANSWER, {"target": ANSWER}) == 1.0


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_answer_that_the_template_teaches_is_one_that_the_parser_reads(language: str) -> None:
    (template,) = [item for item in PACK.templates if item.name == f"consultation-{language}"]
    fields = {"complaint": "x", "department": 'A "b"', "advice": "多喝水\n休息", "urgency": "routine"}
    assert consultation(render(template.messages[-1].content, fields)) == {"department": 'A "b"', "advice": "多喝水\n休息", "urgency": "routine"}


def test_every_family_of_tasks_speaks_both_languages() -> None:
    spoken = {(item.task, item.language) for item in PACK.templates}
    assert {(task, language) for task in ("triage", "coding", "consultation", "consultation-chat", "department") for language in ("zh", "en")} <= spoken
    assert {task for task, language in spoken if language == "zh"} == {task for task, language in spoken if language == "en"}
    assert len(PACK.controls) >= 8


def test_guard_and_quality_rules_act() -> None:
    rules = {rule.name: rule for rule in PACK.guard}
    assert guard_finds(rules["dose_change"], "可以自行停药。")
    assert not guard_finds(rules["dose_change"], "按时服药。")
    assert rules["advice"].text.keys() == {"zh", "en"}
    assert [rule.name for rule in PACK.quality if quality_reason(rule, "同上")] == ["too_short", "no_answer"]
    assert [rule.name for rule in PACK.quality if quality_reason(rule, "高血压患者能吃党参吗？")] == []
