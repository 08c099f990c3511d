"""Mixing: shares after the formula, exact counts, replay, balance, curriculum, and the same plan every time."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_of_prepare import chat
from metier.errors import InputError
from metier.prepare.mix import CurriculumSettings, Item, MixSettings, ReplaySettings, apportion, items, mix, shares


def group(name, count, *, size=10, labels=(None,)):
    return [Item(f"{name}{number:05d}", name, labels[number % len(labels)], size, float(number)) for number in range(count)]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
def test_shares_follow_the_formula_and_counts_are_exact(alpha):
    domain = [*group("a", 800), *group("b", 150), *group("c", 50)]
    found = mix(domain, MixSettings(alpha=alpha))
    after = Counter(name[0] for name in found.order)
    powers = {name: count**alpha for name, count in {"a": 800, "b": 150, "c": 50}.items()}
    exact = {name: 1000 * power / sum(powers.values()) for name, power in powers.items()}
    assert after.total() == 1000
    assert all(abs(after[name] - exact[name]) < 1 for name in exact)
    assert found.report["groups"]["a"]["share_before"] == 0.8
    if alpha == 1:
        assert set(found.repeats.values()) == {1}


def test_alpha_six_tenths_by_hand():
    # 800^.6 = 55.19, 150^.6 = 20.21, 50^.6 = 10.46
    assert {name: round(share, 3) for name, share in shares({"a": 800, "b": 150, "c": 50}, key="prepare.mix").items()} == {"a": 0.643, "b": 0.235, "c": 0.122}


@settings(deadline=None)
@given(st.integers(0, 5000), st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.floats(0.001, 100), min_size=1, max_size=8))
def test_seats_add_up_and_differ_by_less_than_one(total, wanted):
    seats = apportion(total, wanted)
    assert sum(seats.values()) == total
    assert all(abs(seats[name] - total * share / sum(wanted.values())) < 1 for name, share in wanted.items())


def test_largest_remainders_get_the_seats():
    assert apportion(100_000, {"a": 47000, "b": 16000, "c": 15900, "d": 12000, "e": 6000, "f": 3100})["c"] == 15900
    assert apportion(10, {"a": 47000, "b": 16000, "c": 15900, "d": 12000, "e": 6000, "f": 3100}) == {"a": 5, "b": 2, "c": 1, "d": 1, "e": 1, "f": 0}
    assert apportion(10, {"a": 1, "b": 1, "c": 1}) == {"a": 4, "b": 3, "c": 3}


def test_repeats_are_even_and_weights_multiply():
    found = mix([*group("a", 900), *group("b", 100)], MixSettings(alpha=1.0, weights={"b": 9.0}))
    assert Counter(name[0] for name in found.order) == {"a": 500, "b": 500}
    assert {found.repeats[f"b{number:05d}"] for number in range(100)} == {5}
    assert found.report["unseen"] == 400
    assert found.report["groups"]["b"] == {"records": 100, "share_before": 0.1, "share_wanted": 0.5, "places": 500, "share_after": 0.5, "mean_repeats": 5.0}
    none = mix([*group("a", 10), *group("b", 10)], MixSettings(weights={"b": 0.0}))
    assert {name[0] for name in none.order} == {"a"}
    three = mix(group("a", 10), MixSettings(epochs=2.5))
    assert Counter(three.repeats.values()) == {2: 5, 3: 5}


def test_the_plan_does_not_depend_on_the_order_of_the_records():
    domain = [*group("a", 300), *group("b", 40)]
    settings = MixSettings(replay=ReplaySettings(share=0.2), curriculum=CurriculumSettings(by="difficulty"))
    general = [Item(f"g{number}", "general", None, 7, None) for number in range(50)]
    one = mix(domain, settings, general)
    two = mix(random.Random(1).sample(domain, len(domain)), settings, list(reversed(general)))
    assert one.order == two.order and one.report == two.report
    assert mix(domain, settings.model_copy(update={"seed": 1}), general).order != one.order


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_replay_has_its_share_of_records_or_tokens(share):
    domain, general = group("a", 400, size=30), [Item(f"g{number}", "general", None, 10 + number % 40, None) for number in range(60)]
    by_records = mix(domain, MixSettings(replay=ReplaySettings(share=share)), general)
    replayed = sum(name.startswith("g") for name in by_records.order)
    assert replayed / len(by_records.order) == pytest.approx(share, abs=1 / 400)
    by_tokens = mix(domain, MixSettings(replay=ReplaySettings(share=share, of="tokens")), general)
    sizes = {item.id: item.size for item in (*domain, *general)}
    total = sum(sizes[name] for name in by_tokens.order)
    assert sum(sizes[name] for name in by_tokens.order if name.startswith("g")) / total == pytest.approx(share, abs=25 / total)
    assert by_tokens.report["replay"]["share_of_size"] == pytest.approx(share, abs=25 / total)


def test_labels_are_balanced_within_a_group():
    domain = group("a", 90, labels=("x", *["y"] * 8))
    found = mix(domain, MixSettings(balance_labels=True))
    assert found.report["labels_before"] == {"x": 10, "y": 80}
    assert found.report["labels_after"] == {"x": 45, "y": 45}


def test_a_curriculum_goes_from_easy_to_hard_in_steps():
    domain = group("a", 100)
    order = [int(name[1:]) for name in mix(domain, MixSettings(curriculum=CurriculumSettings(by="difficulty", buckets=4))).order]
    steps = [order[place : place + 25] for place in range(0, 100, 25)]
    assert [(min(step), max(step)) for step in steps] == [(0, 24), (25, 49), (50, 74), (75, 99)]
    assert all(step != sorted(step) for step in steps)
    down = [int(name[1:]) for name in mix(domain, MixSettings(curriculum=CurriculumSettings(by="difficulty", buckets=4, descending=True))).order]
    assert min(down[:25]) == 75


def test_items_know_group_size_and_difficulty_of_records():
    records = [chat(1, "问题", "回答", task="t", label="l", metadata={"perplexity": 3.5}), chat(2, "question", "a", language="en", metadata={"perplexity": 9})]
    assert [(item.group, item.label, item.size, item.difficulty) for item in items(records, MixSettings())] == [("t", "l", 4, None), ("unknown", None, 9, None)]
    by = MixSettings(by="source", curriculum=CurriculumSettings(by="perplexity"))
    assert [(item.group, item.difficulty) for item in items(records, by)] == [("a.jsonl", 3.5), ("a.jsonl", 9.0)]
    assert [item.difficulty for item in items(records, MixSettings(curriculum=CurriculumSettings(by="length")))] == [4.0, 9.0]
    with pytest.raises(InputError, match="1 records have no number 'quality'"):
        items(records[:1], MixSettings(curriculum=CurriculumSettings(by="quality")))
    hard = MixSettings(curriculum=CurriculumSettings(by="quality", missing="hard"))
    assert items(records[:1], hard)[0].difficulty is None


def test_what_cannot_be_mixed_is_said():
    with pytest.raises(InputError, match="there is no group 'aa'"):
        mix(group("a", 3), MixSettings(weights={"aa": 2.0}))
    with pytest.raises(InputError, match="no general data"):
        mix(group("a", 3), MixSettings(replay=ReplaySettings(share=0.1)))
    with pytest.raises(InputError, match="no records to mix"):
        mix([], MixSettings())
    with pytest.raises(InputError, match="stand twice"):
        mix([*group("a", 3), *group("a", 3)], MixSettings())
    with pytest.raises(InputError, match="nothing is left"):
        shares({"a": 0}, key="prepare.mix")
    with pytest.raises(InputError, match="nothing is left"):
        mix(group("a", 3), MixSettings(weights={"a": 0.0}))
    with pytest.raises(ValueError, match="a weight is 0 or more: a"):
        MixSettings(weights={"a": -1.0})
