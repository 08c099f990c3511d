from collections import Counter

import pytest

from metier.evaluation.retention import FAMILIES, retention_task, summarise
from metier.evaluation.statistics import draw_weights


def test_the_same_seed_gives_the_same_probe_and_another_seed_another_one():
    first, again, other = retention_task(160, 0, ["zh", "en"]), retention_task(160, 0, ["zh", "en"]), retention_task(160, 1, ["zh", "en"])
    assert first.items == again.items
    assert first.items != other.items
    assert first.items[0].prompt_hash == "ecddc1066f6c28a0431732f442ba6a300907c06c938d168a791e4728e93e1478"


def test_every_family_and_language_has_its_share_and_each_item_one_right_choice_of_four():
    task = retention_task(160, 0, ["en", "zh"])
    assert Counter((item.family, item.language) for item in task.items) == {(family, language): 16 for family in FAMILIES for language in ("zh", "en")}
    for item in task.items:
        assert len(set(item.choices)) == 4
        assert item.choices.count(item.target) == 1
    assert len({item.id for item in task.items}) == 160
    places = Counter(item.choices.index(item.target) for item in task.items)
    assert min(places.values()) > 20


def test_the_arithmetic_is_right_and_stands_in_both_languages():
    items = [item for item in retention_task(200, 3, ["zh", "en"]).items if item.family == "arithmetic"]
    for item in items:
        text = item.prompt[-1].content
        left, sign, right = text.splitlines()[-1].removesuffix(" =").split()
        assert int(item.target) == (int(left) + int(right) if sign == "+" else int(left) - int(right))
    assert {item.language for item in items} == {"zh", "en"}


def test_only_the_languages_of_the_project_are_asked_and_both_where_it_has_neither():
    assert {item.language for item in retention_task(40, 0, ["en"]).items} == {"en"}
    assert {item.language for item in retention_task(40, 0, ["fr"]).items} == {"zh", "en"}


def test_a_probe_larger_than_its_material_ends():
    task = retention_task(1000, 0, ["zh"])
    knowledge = [item for item in task.items if item.family == "knowledge"]
    assert len(knowledge) == 30


def summary(base_right: dict[str, int], tuned_right: dict[str, int]) -> dict:
    items = retention_task(200, 0, ["en"]).items
    taken: Counter[str] = Counter()
    base, tuned = [], []
    for item in items:
        base.append(taken[item.family] < base_right.get(item.family, 0))
        tuned.append(taken[item.family] < tuned_right.get(item.family, 0))
        taken[item.family] += 1
    return summarise(items, base, tuned, draw_weights([item.family for item in items], 500, 0), 0.95)


def test_retention_is_the_share_of_the_lead_over_chance():
    facts = summary({"arithmetic": 40, "copying": 30}, {"arithmetic": 25, "copying": 30})
    families = facts["families"]
    # 40 items a family: base 1, tuned .625, chance .25.
    assert families["arithmetic"]["retention"] == pytest.approx((0.625 - 0.25) / 0.75)
    assert families["arithmetic"]["degradation"] == "severe"
    assert families["copying"]["retention"] == 1.0
    assert families["copying"]["degradation"] == "none"
    assert families["format"]["retention"] is None
    assert facts["retention"]["value"] == pytest.approx((0.5 + 1.0) / 2)
    assert facts["retention"]["low"] < 0.75 < facts["retention"]["high"]
    assert facts["forgetting"]["value"] == pytest.approx(0.375 / 5)


def test_retention_is_not_measurable_for_a_base_at_chance_and_never_a_hundred_percent():
    facts = summary(dict.fromkeys(FAMILIES, 10), dict.fromkeys(FAMILIES, 10))
    assert facts["measurable"] is False
    assert facts["retention"] is None
    assert all(family["retention"] is None for family in facts["families"].values())


def test_a_family_three_errors_above_chance_is_measurable_and_below_it_is_not():
    # n = 40: 3 * sqrt(.5 * .5 / 40) = .237, so 20 right (.5 - .25 = .25) is enough and 18 is not (.2 < .236).
    facts = summary({"arithmetic": 20, "copying": 18}, {})
    assert facts["families"]["arithmetic"]["measurable"] is True
    assert facts["families"]["copying"]["measurable"] is False


def test_a_better_tuned_model_is_capped():
    facts = summary({"arithmetic": 25}, {"arithmetic": 40})
    assert facts["families"]["arithmetic"]["retention"] == 1.05
    assert facts["forgetting"]["value"] == 0.0
