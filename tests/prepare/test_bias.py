"""Groups by columns and by plain signs, topics by their words, small cells not counted out."""

import pytest

from corpus_of_prepare import row
from metier.prepare.bias import UNKNOWN, BiasSettings, bias_facts, detected_groups, group_views, topics


@pytest.mark.parametrize(
    ("text", "age", "sex", "region"),
    [
        ("女，45岁，来自四川成都，头晕三天。", "40-64", "female", "西南"),
        ("我父亲今年91周岁，住在北京。", "90-120", "male", "华北"),
        ("宝宝8个月大，发烧。", "0-17", UNKNOWN, UNKNOWN),
        ("A 67-year-old woman from Ohio told her husband.", "65-89", "female", "US Midwest"),
        ("He is 30 years old and lives in Texas with his dog.", "18-39", "male", "US South"),
        ("There was a history of use in the theme park.", UNKNOWN, UNKNOWN, UNKNOWN),
        ("120岁以上的树，2000年种下。", "90-120", UNKNOWN, UNKNOWN),
        ("工龄3.5年", UNKNOWN, UNKNOWN, UNKNOWN),
    ],
)
def test_age_sex_and_region_are_read_from_plain_signs(text, age, sex, region):
    assert detected_groups(text) == {"age": age, "sex": sex, "region": region}


def loans():
    rows = []
    for number in range(200):
        female = number % 4 == 0
        good = number % 8 == 0 if female else number % 10 != 1
        rows.append(row(number, metadata={"sex": "female" if female else "male", "age_in_years": str(20 + number % 60)}, label="good" if good else "bad"))
    return [*rows, row(201, metadata={"sex": "", "age_in_years": "95"}, label="good")]


def test_columns_are_groups_ages_go_into_bands_and_unlike_groups_are_remarked():
    views = {view.name: view for view in group_views(loans(), BiasSettings(columns=("sex", "age_in_years"), detect=False))}
    assert views["sex"].counts == {"male": 150, "female": 50, UNKNOWN: 1}
    assert list(views["age_in_years"].counts) == ["18-39", "40-64", "65-89", "90-120"]
    remark = next(remark for remark in views["sex"].remarks if remark.startswith("female: the label 'bad'"))
    assert remark.startswith("female: the label 'bad' has 50% of the records, of the rest 13%")
    assert "n = 50" in remark
    assert views["age_in_years"].remarks[0] == "below 2 % of those that give one: 90-120"


def test_signs_that_never_occur_make_no_view_and_small_cells_are_not_counted_out():
    records = [row(number, text="女，45岁。", label="a") for number in range(12)] + [row(99, text="男，20岁。", label="b")]
    views = group_views(records, BiasSettings())
    assert {view.name for view in views} == {"age", "sex"}
    facts = bias_facts(views, (), least=5)
    sex = next(view for view in facts["groups"] if view["name"] == "sex")
    assert sex["counts"] == {"female": 12, "male": None}
    assert sex["labels"] == {"female": {"a": 12}}


def test_topics_are_named_by_the_words_that_tell_them_apart():
    said = {"蜂螨防治用药": 20, "越冬保温饲料": 12, "swarm prevention in spring": 8}
    records = [row(f"{place}{number}", text=f"{text} {number}", label=text[:2]) for place, (text, count) in enumerate(said.items()) for number in range(count)]
    found = topics(records, BiasSettings(topics=3))
    assert [topic.records for topic in found] == [20, 12, 8]
    assert found[0].labels == {"蜂螨": 20}
    assert any("蜂螨" in term for term in found[0].terms)
    assert "swarm" in found[2].terms
    assert topics(records[::-1], BiasSettings(topics=3)) == found
    assert topics(records[:2], BiasSettings(topics=3)) == ()
