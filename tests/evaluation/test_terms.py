import pytest

from metier.evaluation.terms import Lexicon, count_terms, load_cues
from metier.packs.spec import Term


def term(code: str, zh: str, en: str, *variants: str) -> Term:
    return Term(code=code, system="example", preferred={"zh": zh, "en": en}, variants=variants)


LEXICON = Lexicon(
    [
        term("fever", "发热", "fever", "pyrexia"),
        term("cough", "咳嗽", "cough"),
        term("allergy", "过敏", "allergy"),
        term("diabetes", "糖尿病", "diabetes"),
        term("diabetes-2", "2型糖尿病", "type 2 diabetes"),
        term("box", "盒子", "box"),
        term("kidney-failure", "肾功能不全", "kidney failure"),
    ],
    load_cues(),
)


def asserted(text: str) -> list[str]:
    return ["/".join(sorted(mention.codes)) for mention in LEXICON.mentions(text) if not mention.negated]


def negated(text: str) -> list[str]:
    return ["/".join(sorted(mention.codes)) for mention in LEXICON.mentions(text) if mention.negated]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The fever and a cough.", ["fever", "cough"]),
        ("Fevers, coughs, allergies, boxes", ["fever", "cough", "allergy", "box"]),
        ("feverish coughing", []),
        ("She has type 2 diabetes", ["diabetes-2"]),
        ("患者发热、咳嗽", ["fever", "cough"]),
        ("诊断为2型糖尿病。", ["diabetes-2"]),
        ("PYREXIA", ["fever"]),
    ],
)
def test_longest_match_by_word_and_by_character(text: str, expected: list[str]):
    assert asserted(text) == expected


@pytest.mark.parametrize(
    ("text", "said", "denied"),
    [
        ("no fever", [], ["fever"]),
        ("He denies fever, cough or allergies.", [], ["fever", "cough", "allergy"]),
        ("No fever but cough", ["cough"], ["fever"]),
        ("No fever. Cough.", ["cough"], ["fever"]),
        ("not only fever", ["fever"], []),
        ("Fever was ruled out", [], ["fever"]),
        ("fever cannot be ruled out", ["fever"], []),
        ("no one two three four five six fever", ["fever"], []),
        ("无发热", [], ["fever"]),
        ("否认发热、咳嗽。", [], ["fever", "cough"]),
        ("无发热，咳嗽三天", ["cough"], ["fever"]),
        ("无发热但咳嗽", ["cough"], ["fever"]),
        ("不仅发热", ["fever"], []),
        ("不排除糖尿病", ["diabetes"], []),
        ("糖尿病已排除", [], ["diabetes"]),
        ("肾功能不全", ["kidney-failure"], []),
    ],
)
def test_negation_reaches_to_the_end_of_its_clause(text: str, said: list[str], denied: list[str]):
    assert asserted(text) == said
    assert negated(text) == denied


def test_precision_counts_mentions_supported_by_reference_or_prompt():
    counts = count_terms(LEXICON, answer="fever, cough and an allergy", reference="fever; diabetes", context="Does she cough?")
    assert (counts.mentions, counts.supported) == (3, 2)
    assert (counts.gold, counts.found) == (2, 1)


def test_negated_mentions_neither_support_nor_count_in_chinese():
    counts = count_terms(LEXICON, answer="无发热。有咳嗽。", reference="发热，咳嗽。", context="")
    assert (counts.mentions, counts.supported) == (1, 1)
    assert (counts.gold, counts.found) == (2, 1)


def test_the_two_languages_of_one_concept_are_the_same_concept():
    counts = count_terms(LEXICON, answer="type 2 diabetes", reference="2型糖尿病", context="")
    assert (counts.mentions, counts.supported, counts.gold, counts.found) == (1, 1, 1, 1)
