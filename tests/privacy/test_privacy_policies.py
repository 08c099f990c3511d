import re
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.errors import ConfigError, InputError
from metier.packs.spec import Examples, Identifier
from metier.privacy import Policy, Treatment, deidentify, load_policy, policies
from metier.privacy.generalise import RESTRICTED_ZIP3, generalise
from metier.privacy.policy import policy_names, read_policy

KEY = bytes(range(32))
EXAMPLES = Examples(match=("x",), reject=("y",))


def only(action: str, **more: object) -> Policy:
    return Policy(policy="own", default=Treatment(action=action, clause="a test", **more))


def said(text: str, policy: str | Policy, **more: object) -> str:
    return deidentify(text, policy=policy, key=KEY, **more).text


def test_the_policies_that_come_with_metier_are_read_and_every_entry_names_its_clause() -> None:
    assert sorted(policies()) == ["gdpr", "pipl", "safe-harbor", "strict"]
    assert load_policy("HIPAA") is load_policy("safe-harbor")
    for policy in policies().values():
        entries = [policy.default, *policy.entities.values(), *policy.classes.values(), *policy.kinds.values()]
        assert all(entry.clause for entry in entries)
        assert policy.basis and policy.title["zh"]


@pytest.mark.parametrize(
    ("policy", "zh", "en"),
    [
        ("safe-harbor", "1980年", "1980"),
        ("pipl", "1980年", "1980"),
        ("gdpr", "1980年", "1980"),
        ("strict", "[DATE_OF_BIRTH]", "[DATE_OF_BIRTH]"),
    ],
)
def test_dates_of_birth_by_policy(policy: str, zh: str, en: str) -> None:
    assert said("出生日期：1980年1月2日，", policy) == f"出生日期：{zh}，"
    assert said("DOB: 03/01/1980.", policy) == f"DOB: {en}."


def test_safe_harbor_leaves_the_year_and_moves_dates_where_it_is_asked_to() -> None:
    text = "入院日期：2022年3月1日，出院日期：2022-03-15。"
    assert said(text, "hipaa", pack="medical") == "入院日期：2022年，出院日期：2022。"
    moved = said(text, load_policy("hipaa").dated("shift"), pack="medical", subject="s")
    first = date(*map(int, re.search("([0-9]+)年([0-9]+)月([0-9]+)日", moved).groups()))
    second = date.fromisoformat(re.search("[0-9]{4}-[0-9]{2}-[0-9]{2}", moved).group())
    assert (second - first).days == 14 and first != date(2022, 3, 1)


def test_who_is_very_old_cannot_be_told_by_age_or_year_of_birth() -> None:
    assert said("患者，男，95岁，出生日期：1930-01-02", "hipaa", pack="medical") == "患者，男，90+岁，出生日期：[DATE_OF_BIRTH]"
    kept = said("身份证440524188001010014", "hipaa")
    assert re.fullmatch("身份证00[0-9]{4}1937[0-9]{7}[0-9X]", kept)


@pytest.mark.parametrize(
    ("to", "value", "left"),
    [
        ({"to": "year"}, "2022年3月1日8时30分", "2022年"),
        ({"to": "year"}, "二〇二二年三月一日", "二〇二二年"),
        ({"to": "year"}, "March 3, 1980 at 8:30 am", "1980"),
        ({"to": "year"}, "25/12/2022", "2022"),
        ({"to": "year"}, "3月1日", None),
        ({"to": "year"}, "3/1/22", None),
        ({"to": "year", "earliest": 1937}, "1936-12-31", None),
        ({"to": "year", "earliest": 1937}, "1937-01-01", "1937"),
        ({"to": "age", "above": 89}, "89", "89"),
        ({"to": "age", "above": 89}, "90", "90+"),
        ({"to": "age", "above": 89}, "九十五", "90+"),
        ({"to": "age", "above": 89}, "９５", "90+"),
        ({"to": "age", "below": 14}, "13", "0-13"),
        ({"to": "age", "width": 10}, "45岁", "40-49岁"),
        ({"to": "age", "above": 89}, "unknown", None),
        ({"to": "zip3"}, "62704-1234", "627"),
        ({"to": "zip3"}, "03601", "000"),
        ({"to": "zip3"}, "1234", None),
        ({"to": "province"}, "广东省深圳市南山区科技园路1号", "广东省"),
        ({"to": "city"}, "广东省深圳市南山区科技园路1号", "广东省深圳市"),
        ({"to": "city"}, "北京市朝阳区建国路88号", "北京市"),
        ({"to": "city"}, "和平里小区3栋", None),
        ({"to": "province"}, "42 Baker Street, Springfield, IL 62704", "IL"),
        ({"to": "province"}, "42 Baker Street, Albany, New York", "New York"),
        ({"to": "province"}, "42 Baker Street", None),
        ({"to": "range", "width": 1000}, "12,345.60元", "12000-13000元"),
    ],
)
def test_what_is_left_of_a_generalised_value(to: dict[str, object], value: str, left: str | None) -> None:
    assert generalise(Treatment(action="generalise", clause="a test", **to), value) == left


def test_the_seventeen_small_zip_areas_are_those_of_the_guidance() -> None:
    assert len(RESTRICTED_ZIP3) == 17
    for text, digits in (("Springfield, IL 62704 today", "62704"), ("Laconia, NH 03601 today", "03601")):
        assert digits not in said(text, "hipaa", language="en")


@pytest.mark.parametrize(
    ("action", "pattern"),
    [
        ("mask", r"电话\[PHONE_NUMBER\]。"),
        ("hash", r"电话\[PHONE_NUMBER:[0-9a-f]{12}\]。"),
        ("token", r"电话\[PHONE_NUMBER:[0-9a-f]{12}\]。"),
        ("remove", "电话。"),
        ("surrogate", "电话12[0-9]{9}。"),
        ("shift", r"电话\[PHONE_NUMBER\]。"),
        ("rule", "电话12[0-9]{9}。"),
        ("keep", "电话13812345678。"),
    ],
)
def test_each_action_writes_what_it_says(action: str, pattern: str) -> None:
    assert re.fullmatch(pattern, said("电话13812345678。", only(action)))


def test_a_mask_may_have_a_text_of_its_own() -> None:
    assert said("电话13812345678。", only("mask", text="某号码")) == "电话某号码。"


def test_the_most_exact_entry_decides() -> None:
    policy = Policy(
        policy="own",
        default=Treatment(action="mask", clause="d"),
        kinds={"phone": Treatment(action="hash", clause="k")},
        entities={"FAX": Treatment(action="remove", clause="e")},
    )

    def action(entity: str, surrogate: str) -> str:
        return policy.treatment(Identifier(entity=entity, pattern="x", surrogate=surrogate, examples=EXAMPLES)).action

    assert [action("FAX", "phone"), action("PHONE_NUMBER", "phone"), action("OTHER", "shape")] == ["remove", "hash", "mask"]


def test_what_a_policy_keeps_does_not_hide_what_has_to_go() -> None:
    policy = Policy(policy="own", default=Treatment(action="mask", clause="d"), entities={"ADDRESS": Treatment(action="keep", clause="e")})
    text = "家住北京市朝阳区建国路88号，电话13812345678"
    assert said(text, policy) == "家住北京市朝阳区建国路88号，电话[PHONE_NUMBER]"


def test_all_faults_of_a_policy_file_are_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "policy: own\ndefault: {action: mask}\nkinds:\n  fone: {action: mask, clause: c}\n  date: {action: generalise, clause: c}\n"
        "entities:\n  person: {action: mask, clause: c}\n  AGE: {action: blur, clause: c}\nextra: 1\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        read_policy(file)
    text = str(caught.value)
    for part in (":2", "clause", "fone", "needs it", "PERSON", "blur", "extra", ":9"):
        assert part in text
    assert len(caught.value.faults) == 6


def test_an_own_policy_is_used_and_an_unknown_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("policy: own\ndefault: {action: mask, clause: house rule 7}\n", encoding="utf-8")
    result = deidentify("电话13812345678", policy=file)
    assert (result.text, result.spans[0].clause) == ("电话[PHONE_NUMBER]", "house rule 7")
    with pytest.raises(InputError, match="did you mean 'pipl'"):
        deidentify("x", policy="pip")
    assert "hipaa" in policy_names()


def test_one_disguise_may_stand_for_all_and_the_rest_of_the_policy_stays() -> None:
    text = said("出生日期：1980-01-02，电话13812345678", load_policy("hipaa").disguised("mask"))
    assert text == "出生日期：1980，电话[PHONE_NUMBER]"


WRITINGS = [
    lambda day: day.isoformat(),
    lambda day: f"{day.year}年{day.month}月{day.day}日",
    lambda day: f"{day:%m/%d/%Y}",
    lambda day: f"{day:%B} {day.day}, {day.year}",
]


@given(st.dates(date(1950, 1, 1), date(2040, 1, 1)), st.integers(0, 900), st.sampled_from(WRITINGS), st.sampled_from(WRITINGS), st.text("abc", max_size=4))
@settings(max_examples=60, deadline=None)
def test_intervals_between_the_dates_of_a_subject_are_kept_in_every_writing(first: date, apart: int, one: object, other: object, subject: str) -> None:
    policy = only("shift")
    made = []
    for day, writing in ((first, one), (first + timedelta(days=apart), other)):
        result = deidentify(f"DOB: {writing(day)} ", policy=policy, key=KEY, subject=subject, language=None)
        (span,) = result.spans
        numbers = list(map(int, re.findall("[0-9]+", span.text)))
        if "/" in span.text:
            numbers = [numbers[2], numbers[0], numbers[1]]
        elif len(numbers) == 2:
            months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
            numbers = [numbers[1], months.index(span.text[:3]) + 1, numbers[0]]
        made.append(date(*numbers))
    assert (made[1] - made[0]).days == apart and made[0] != first
