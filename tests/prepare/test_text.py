"""Cleaning, language and the strings of a record."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus_of_prepare import chat, row
from metier.prepare.clean import clean, tidy
from metier.prepare.compare import bare, critical, fold
from metier.prepare.language import detect
from metier.prepare.settings import CleanSettings
from metier.prepare.strings import strings, with_strings

ALL = CleanSettings()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\u200bb\ufeffc\u202ed\x00e\x07", "abcde"),
        ("一\r\n二\r三\u2028四", "一\n二\n三\n四"),
        ("  a   b \n\n\n\n\u3000\u3000c  ", "a b\n\n c"),
        ("e\u0301", "\u00e9"),
        ("５ｍｇ", "５ｍｇ"),
        ("10² ½ ① ㎎", "10² ½ ① ㎎"),
        ("无发热，体温３６．５℃", "无发热，体温３６．５℃"),
        ("tab\there", "tab\there"),
    ],
)
def test_tidying_removes_what_cannot_be_seen_and_nothing_that_is_read(before, after):
    assert tidy(before, ALL) == after


@given(st.text())
def test_tidying_twice_is_tidying_once(text):
    assert tidy(tidy(text, ALL), ALL) == tidy(text, ALL)


@given(st.text(alphabet="0123456789.mg%毫克不无²½５"))
def test_tidying_never_changes_digits_units_or_negation(text):
    assert tidy(text, ALL) == text


def test_each_part_of_cleaning_can_be_switched_off():
    assert tidy("a\u200b  b", CleanSettings(invisible=False)) == "a\u200b b"
    assert tidy("a\u200b  b ", CleanSettings(blanks=False)) == "a  b "


def test_cleaning_reaches_every_string_and_says_whether_it_changed_one():
    record = row(1, text="a\u200b", label="b\u200b", metadata={"x": ["c\u200b", {"y": "d\u200b"}], "n": 5, "t": True, "z": None})
    cleaned, changed = clean(record, ALL)
    assert changed
    assert (cleaned.text, cleaned.label, dict(cleaned.metadata)) == ("a", "b", {"x": ["c", {"y": "d"}], "n": 5, "t": True, "z": None})
    assert clean(cleaned, ALL) == (cleaned, ())


def test_strings_go_out_and_come_back():
    record = chat(1, "问", "答", label="l", metadata={"b": 13800138000, "a": ["x", 1.5, None]})
    assert strings(record) == ["", "问", "答", "l", "x", "13800138000"]
    assert with_strings(record, strings(record)) == record
    changed = with_strings(record, ["", "1", "2", "3", "4", "[PHONE]"])
    assert [message.content for message in changed.messages] == ["1", "2"]
    assert dict(changed.metadata) == {"a": ["4", 1.5, None], "b": "[PHONE]"}
    for wrong in (strings(record)[:-1], [*strings(record), "more"]):
        with pytest.raises(ValueError, match="strings than"):
            with_strings(record, wrong)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("患者口服 Metformin 0.5 g, twice a day", "zh"),
        ("高血压", "zh"),
        ("What is hypertension?", "en"),
        ("The character 山 means mountain in Chinese writing.", "en"),
        ("これは日本語の文章です", "und"),
        ("Это русский текст", "und"),
        ("120/80 ?!", None),
        ("", None),
    ],
)
def test_languages_are_told_by_letters(text, language):
    assert detect(text) == language


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("每次 5 mg，每日两次", "每次 50 mg，每日两次"),
        ("每次5毫克", "每次5克"),
        ("give 5 mg", "give 5 g"),
        ("患者无发热", "患者发热"),
        ("第三条", "第四条"),
        ("10² per l", "102 per l"),
        ("no fever", "fever"),
        ("He doesn't smoke", "He does smoke"),
        ("左肺结节", "右肺结节"),
        ("-1.5", "1.5"),
        ("blood was positive", "blood was negative"),
        ("2024-03-01", "2024-03-02"),
        (">5", "<5"),
    ],
)
def test_what_turns_a_statement_round_is_critical(one, other):
    assert critical(one) != critical(other)


@pytest.mark.parametrize(("one", "other"), [("每次５ｍｇ", "每次5mg"), ("5 mg", "5mg"), ("notable", "table"), ("这是一些药", "这是些药"), ("it may", "it MAY")])
def test_what_does_not_is_not(one, other):
    assert [item.casefold() for item in critical(one)] == [item.casefold() for item in critical(other)]


def test_folding_is_for_comparison():
    assert fold(" Ｈｅｌｌｏ，  世界\n１ ") == "hello, 世界 1"
    assert bare("头痛，怎么办？") == bare("头痛怎么办")


@given(st.text(alphabet=st.characters(max_codepoint=0x1FFFF, exclude_categories=("Cs",))))
def test_folding_is_nfkc_and_casefold_with_single_blanks(text):
    assert fold(text) == " ".join(unicodedata.normalize("NFKC", text).casefold().split())
