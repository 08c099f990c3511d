import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import CHRF

from metier.evaluation.text import chrf, language_of, normalise, rouge_l, tokens

TEXTS = st.text(alphabet="ab c河水。1 ", max_size=24)


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("the cat sat on the mat", "the cat is on the mat"),
        ("患者无发热，咳嗽三天。", "患者发热三天，无咳嗽。"),
        ("今天 is a 好天气", "今天是 good 天气"),
        ("a", "a"),
        ("xyz", "abc"),
        ("", "abc"),
        ("short", "a much longer reference sentence"),
    ],
)
def test_chrf_equals_sacrebleu(prediction: str, reference: str):
    assert 100 * chrf(prediction, reference) == pytest.approx(CHRF().sentence_score(prediction, [reference]).score, abs=1e-9)


@given(TEXTS, TEXTS)
def test_chrf_equals_sacrebleu_on_any_text(prediction: str, reference: str):
    assert 100 * chrf(prediction, reference) == pytest.approx(CHRF().sentence_score(prediction, [reference]).score, abs=1e-9)


def test_tokens_are_han_characters_words_and_whole_numbers():
    assert tokens("口服2.5mg, Twice-daily café 二甲双胍") == ["口", "服", "2.5", "mg", "twice", "daily", "café", "二", "甲", "双", "胍"]


def test_rouge_l_of_english_words():
    # LCS "police the gunman" = 3 of 4 words on both sides (Lin 2004, section 3.1).
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(0.75)
    # LCS = 2: precision 2/4, recall 2/4.
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(0.5)


def test_rouge_l_of_chinese_characters():
    # LCS of 河水很清 and 河水清 is 3: precision 3/4, recall 3/3.
    assert rouge_l("河水很清", "河水清") == pytest.approx(2 * 0.75 / 1.75)
    assert rouge_l("东", "西") == 0.0
    assert rouge_l("", "西") == 0.0


def brute_lcs(left: list[str], right: list[str]) -> int:
    if not left or not right:
        return 0
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(TEXTS, TEXTS)
def test_rouge_l_equals_the_table_form(prediction: str, reference: str):
    guess, gold = tokens(prediction), tokens(reference)
    common = brute_lcs(guess, gold)
    expected = 2 * common / (len(guess) + len(gold)) if common else 0.0
    assert rouge_l(prediction, reference) == pytest.approx(expected)


def test_normal_form_folds_width_case_and_ends_but_no_inner_digits():
    assert normalise("  Ｈｏｔ。 ") == "hot"
    assert normalise("答案：３.５ mg") == "答案:3.5 mg"
    assert (normalise("-5"), normalise(".5."), normalise("“5%”。")) == ("-5", ".5", "5%")
    assert normalise("（热）") == "热"
    assert normalise("0.5 mg") != normalise("5 mg")


def test_language_is_told_by_han_characters():
    assert language_of("river") == "en"
    assert language_of("a 河") == "zh"
