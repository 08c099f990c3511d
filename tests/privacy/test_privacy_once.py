import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import metier
from metier.errors import PrivacyError
from metier.packs import load
from metier.privacy import deidentify
from metier.privacy.sweeping import findings
from metier.privacy.validators import luhn_digit, resident_id_digit
from metier.records import Span

KEY = bytes(range(32))
POLICIES = ["safe-harbor", "pipl", "gdpr", "strict"]


def test_one_call_gives_text_and_spans_that_fit() -> None:
    text = "姓名：张伟，电话１３８１２３４５６７８。"
    result = metier.deidentify(text, language="zh", policy="pipl")
    assert [(text[span.start : span.end], span.entity, span.action) for span in result.spans] == [
        ("张伟", "PERSON", "surrogate"),
        ("１３８１２３４５６７８", "PHONE_NUMBER", "surrogate"),
    ]
    assert all(result.text[span.new_start : span.new_end] == span.text for span in result.spans)
    assert all(0 < span.score <= 1 and span.rule and span.clause for span in result.spans)


def test_the_same_person_is_the_same_in_every_call_of_a_key_and_of_a_process() -> None:
    one, two = deidentify("姓名：张伟", key=KEY).text, deidentify("联系人：张伟，女", key=KEY).text
    assert one.removeprefix("姓名：") == two[4:6]
    assert deidentify("姓名：张伟").text == deidentify("姓名：张伟").text
    assert deidentify("姓名：张伟", key=b"another key of enough bytes").text != one or deidentify("电话13812345678", key=KEY).text != "x"


@pytest.mark.parametrize(("name", "others"), [("Mary", "given_female"), ("John", "given_male")])
def test_english_given_names_keep_their_sex(name: str, others: str) -> None:
    from metier.privacy.surrogates import words

    made = {deidentify(f"Name: {name} Smith.", key=bytes([number]) * 16, language="en").text[6:].split()[0] for number in range(8)}
    assert made <= set(words()[others]) - {name} and len(made) > 1


def test_organisations_keep_their_kind() -> None:
    class Companies:
        name = "companies"

        def tag(self, texts):
            return [
                tuple(Span(m.start(), m.end(), "ORGANIZATION", m.group(), 0.9, self.name) for m in re.finditer("[京海]华商贸有限公司|Acme Widgets Inc", text))
                for text in texts
            ]

    made = deidentify("京华商贸有限公司与Acme Widgets Inc签约", policy="safe-harbor", taggers=[Companies()], key=KEY).text
    assert re.fullmatch("[^京]{4}有限公司与[A-Z][a-z]+ Inc签约", made)
    assert deidentify("京华商贸有限公司", policy="pipl", taggers=[Companies()]).text == "京华商贸有限公司"


def test_packs_are_named_or_given() -> None:
    text = "住院号：A2023-0456"
    assert "A2023-0456" not in deidentify(text, pack="medical").text
    assert deidentify(text, pack=load("medical"), key=KEY).text == deidentify(text, pack="medical", key=KEY).text


@pytest.mark.parametrize("text", ["", "。，！", "\u202e\u0000😀", "é" * 10_000, "x" * 100_000, "\n" * 5000, "مرحبا"])
def test_odd_texts_pass_as_they_are(text: str) -> None:
    assert deidentify(text).text == text


def resident() -> st.SearchStrategy[str]:
    bodies = st.tuples(st.integers(110000, 659999), st.integers(1940, 2020), st.integers(0, 999)).map(lambda p: f"{p[0]}{p[1]}0615{p[2]:03}")
    return bodies.map(lambda body: body + resident_id_digit(body))


CARDS = st.text("0123456789", min_size=14, max_size=14).map(lambda tail: "62" + tail).map(lambda body: body + luhn_digit(body))
MOBILES = st.text("0123456789", min_size=8, max_size=8).map(lambda tail: "139" + tail)
MAILS = st.text("abcdefgh", min_size=3, max_size=9).map(lambda name: f"{name}@corp.net")
LAYOUTS = [
    "身份证{0}卡{1}手机{2}邮箱{3}",
    "身份证：{0}。\n卡号 {1}，\n电话：{2}；{3}",
    "ID {0}, card {1}, phone {2}, mail {3}.",
    "{3}和{2}和{1}和{0}",
]


def wide(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if char.isdigit() else char for char in text)


@given(resident(), CARDS, MOBILES, MAILS, st.sampled_from(LAYOUTS), st.sampled_from(POLICIES), st.booleans())
@settings(max_examples=120, deadline=None)
def test_no_original_is_left_by_any_policy_in_any_layout(person: str, card: str, mobile: str, mail: str, layout: str, policy: str, full: bool) -> None:
    values = [wide(value) if full else value for value in (person, card, mobile)] + [mail]
    result = deidentify(layout.format(*values), policy=policy, key=KEY)
    assert len(result.spans) == 4
    assert not any(value in result.text for value in [*values, person, card, mobile])
    assert list(findings(result.text)) == [] or policy != "strict"


@given(resident(), CARDS, MOBILES, MAILS, st.sampled_from(LAYOUTS), st.sampled_from(POLICIES))
@settings(max_examples=40, deadline=None)
def test_a_second_time_changes_no_more_than_surrogates(person: str, card: str, mobile: str, mail: str, layout: str, policy: str) -> None:
    once = deidentify(layout.format(person, card, mobile, mail), policy=policy, key=KEY)
    twice = deidentify(once.text, policy=policy, key=KEY)
    places = [(span.new_start, span.new_end) for span in once.spans]
    assert all(any(start <= span.start and span.end <= end for start, end in places) for span in twice.spans)
    if policy == "strict":
        assert twice.text == once.text


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("写信给 x.y@corp.net", "at_sign"),
        ("打１３９８７６５４３２１", "mobile"),
        ("219-09-9999", "social"),
        ("11010519491231002X", "check_character"),
        ("4111 1111 1111 1111", "check_digit"),
        ("账号为 62012345", "label"),
        ("Account no. 445566", "label"),
    ],
)
def test_the_second_search_finds_by_rules_of_its_own(text: str, rule: str) -> None:
    assert rule in {finding.rule for finding in findings(text)}


@pytest.mark.parametrize(
    ("value", "left"), [("13812345678", "1381 2345 678"), ("张伟明", "张 伟明"), ("Jane Doe", "Ms Jane Doe"), ("AB-123456", "ab１２３４５６")]
)
def test_the_second_search_finds_originals_in_other_layouts(value: str, left: str) -> None:
    assert "original" in {finding.rule for finding in findings(left, [("X", value)])}


@pytest.mark.parametrize(
    "text", ["血压120/80，2022年3月1日", "剂量 0.5 mg 共14天", "第123456条", "order 20220301123456", "user@example.com", "电话咨询了3次，每次20分钟"]
)
def test_the_second_search_leaves_ordinary_text_alone(text: str) -> None:
    assert list(findings(text)) == []


def test_what_the_rules_miss_and_the_second_search_finds_is_not_given_out() -> None:
    with pytest.raises(PrivacyError, match="second search finds CREDIT_CARD") as caught:
        deidentify("银行卡流水共计623456元")
    assert "623456" not in str(caught.value)
