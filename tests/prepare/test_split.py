"""Splits share no key, keep their shares, and depend on nothing but the seed and the units themselves."""

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from corpus_of_prepare import row
from metier.errors import InputError
from metier.prepare.settings import SplitSettings
from metier.prepare.split import EXCLUDED, ExternalTest, Unit, assign, moment, of_fold, stratum


def units(count, *, keys=lambda number: (), tasks=lambda number: {"qa": 1}, time=lambda number: None):
    return [Unit(f"u{number:04d}", tuple(keys(number)), tasks(number), time(number)) for number in range(count)]


UNIT = st.builds(
    lambda number, keys, count: Unit(f"u{number}", tuple(f"k{key}" for key in keys), {"a": count}),
    st.integers(0, 10_000),
    st.lists(st.integers(0, 40), max_size=3),
    st.integers(1, 4),
)


def components(given_units):
    """Count the groups that share keys, by merging sets until nothing changes."""
    groups = []
    for unit in given_units:
        mine = {unit.id, *unit.keys}
        apart = [group for group in groups if not group & mine]
        groups = [*apart, mine.union(*(group for group in groups if group & mine))]
    return len(groups)


@settings(max_examples=60, deadline=None)
@given(st.lists(UNIT, min_size=1, max_size=80, unique_by=lambda unit: unit.id), st.integers(0, 5), st.randoms())
def test_no_key_is_in_two_splits_and_no_split_is_empty(given_units, seed, rng):
    try:
        splits = assign(given_units, SplitSettings(seed=seed))
    except InputError:
        assert components(given_units) < 3
        return
    assert components(given_units) >= 3
    assert set(splits) == {unit.id for unit in given_units}
    assert set(splits.values()) == {"train", "validation", "test"}
    where = defaultdict(set)
    for unit in given_units:
        for key in unit.keys:
            where[key].add(splits[unit.id])
    assert all(len(found) == 1 for found in where.values())
    shuffled = list(given_units)
    rng.shuffle(shuffled)
    assert assign(shuffled, SplitSettings(seed=seed)) == splits


def test_shares_are_those_of_records():
    counts = Counter(assign(units(1000), SplitSettings(test=0.2, validation=0.05)).values())
    assert counts == {"train": 750, "test": 200, "validation": 50}


def test_each_task_keeps_its_share():
    given_units = units(1000, tasks=lambda number: {"rare": 1} if number % 50 == 0 else {"common": 3})
    splits = assign(given_units, SplitSettings())
    rare = Counter(splits[unit.id] for unit in given_units if "rare" in unit.tasks)
    assert rare == {"train": 16, "test": 2, "validation": 2}


def test_one_big_group_goes_to_training():
    splits = assign(units(100, keys=lambda number: ["big"] if number < 60 else []), SplitSettings())
    assert {splits[f"u{number:04d}"] for number in range(60)} == {"train"}
    assert Counter(splits.values()) == {"train": 80, "test": 10, "validation": 10}


def test_keys_chain():
    splits = assign(units(60, keys=lambda number: [f"s{number // 2}", f"c{(number + 1) // 2}"] if number < 20 else []), SplitSettings())
    assert len({splits[f"u{number:04d}"] for number in range(20)}) == 1


def test_another_seed_gives_another_division_and_the_same_seed_the_same():
    assert assign(units(50), SplitSettings(seed=1)) == assign(units(50), SplitSettings(seed=1))
    assert assign(units(50), SplitSettings(seed=1)) != assign(units(50), SplitSettings(seed=2))


def test_three_rows_are_enough_for_three_splits_and_two_are_not():
    assert set(assign(units(3), SplitSettings()).values()) == {"train", "validation", "test"}
    with pytest.raises(InputError, match="3 splits need at least 3"):
        assign(units(2), SplitSettings())
    with pytest.raises(InputError, match="9 rows make 1 group"):
        assign(units(9, keys=lambda number: ["same"]), SplitSettings())


def test_splits_of_share_zero_are_not_made():
    assert set(assign(units(30), SplitSettings(validation=0)).values()) == {"train", "test"}
    assert set(assign(units(1), SplitSettings(validation=0, test=0)).values()) == {"train"}


def test_by_time_the_newest_are_for_testing():
    given_units = units(100, time=lambda number: f"2024-{1 + number % 12:02d}-{1 + number // 12:02d}")
    random.Random(0).shuffle(given_units)
    splits = assign(given_units, SplitSettings(time=True))
    times = {name: sorted(moment(unit.time) for unit in given_units if splits[unit.id] == name) for name in ("train", "validation", "test")}
    assert times["train"][-1] <= times["validation"][0]
    assert times["validation"][-1] <= times["test"][0]
    assert {name: len(found) for name, found in times.items()} == {"train": 80, "validation": 10, "test": 10}


def test_by_time_a_group_goes_where_its_newest_goes():
    given_units = units(40, keys=lambda number: ["s"] if number in (0, 39) else [], time=lambda number: str(1980 + number))
    splits = assign(given_units, SplitSettings(time=True))
    assert splits["u0000"] == splits["u0039"] == "test"


def test_by_time_every_row_needs_one():
    with pytest.raises(InputError, match="1 of 10 rows have no time"):
        assign(units(10, time=lambda number: "soon" if number == 3 else "2024"), SplitSettings(time=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-01", (2024, 3, 1, 0, 0, 0)),
        ("2024/3/1 8:05", (2024, 3, 1, 8, 5, 0)),
        ("20240301", (2024, 3, 1, 0, 0, 0)),
        ("2024年3月1日", (2024, 3, 1, 0, 0, 0)),
        ("2024-03-01T08:05:09Z", (2024, 3, 1, 8, 5, 9)),
        ("2024", (2024, 0, 0, 0, 0, 0)),
        ("soon", None),
        (None, None),
    ],
)
def test_dates_are_read_as_they_are_written(text, expected):
    assert moment(text) == expected


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(ValidationError, match="leave nothing to train on"):
        SplitSettings(test=0.5, validation=0.5)


@pytest.mark.parametrize(
    "values", [{"test": -0.1}, {"test": 1.0}, {"folds": 5, "time": True}, {"folds": 2}, {"folds": 5, "test": ExternalTest(path="a")}, {"folds": 1}]
)
def test_settings_that_cannot_be_met_are_refused(values):
    with pytest.raises(ValidationError):
        SplitSettings(**values)


@settings(max_examples=30, deadline=None)
@given(st.lists(UNIT, min_size=12, max_size=80, unique_by=lambda unit: unit.id), st.integers(3, 5))
def test_every_fold_is_a_valid_split(given_units, count):
    try:
        splits = assign(given_units, SplitSettings(folds=count))
    except InputError:
        assert components(given_units) < count
        return
    folds = {unit.id: splits.fold(unit.id) for unit in given_units}
    assert set(folds.values()) == set(range(count))
    for chosen in range(count):
        names = {fold: of_fold(fold, chosen=chosen, folds=count, validation=True) for fold in range(count)}
        assert list(names.values()).count("test") == list(names.values()).count("validation") == 1
        where = defaultdict(set)
        for unit in given_units:
            for key in unit.keys:
                where[key].add(names[folds[unit.id]])
        assert all(len(found) == 1 for found in where.values())
    assert {name: splits[name] for name in folds} == {name: of_fold(fold, chosen=0, folds=count, validation=True) for name, fold in folds.items()}


def test_folds_are_of_equal_size_in_every_stratum():
    given_units = units(1000, tasks=lambda number: {"rare": 1} if number % 20 == 0 else {"common": 1})
    splits = assign(given_units, SplitSettings(folds=5))
    counts = Counter((splits.fold(unit.id), next(iter(unit.tasks))) for unit in given_units)
    assert {counts[fold, "rare"] for fold in range(5)} == {10}
    assert {counts[fold, "common"] for fold in range(5)} == {190}
    assert assign(given_units, SplitSettings()).fold("u0000") is None


def test_what_shares_a_key_with_an_external_test_set_is_left_out():
    own = units(40, keys=lambda number: [f"subject {number // 2}"])
    external = [Unit("x1", ("subject 0", "subject 1"), {"qa": 1}), Unit("x2", ("nobody",), {"qa": 1})]
    splits = assign(own, SplitSettings(test=ExternalTest(path="exam.jsonl")), external=external)
    assert [splits[f"u{number:04d}"] for number in range(4)] == [EXCLUDED] * 4
    assert splits["x1"] == splits["x2"] == "test"
    rest = Counter(splits[unit.id] for unit in own[4:])
    assert rest == {"train": 32, "validation": 4}


def test_one_id_twice_is_one_unit_of_the_splitter():
    given_units = [*units(30), Unit("u0003", ("k",), {"qa": 1}), Unit("other", ("k",), {"qa": 1})]
    splits = assign(given_units, SplitSettings())
    assert splits["u0003"] == splits["other"]


def test_units_may_come_from_a_generator_and_unknown_ids_are_unknown():
    splits = assign((unit for unit in units(30)), SplitSettings())
    assert len(splits) == 30
    with pytest.raises(KeyError):
        splits["nobody"]


def test_strata_are_tasks_labels_or_both():
    record = row(1, task="triage", label="心内科")
    assert stratum(record, SplitSettings()) == "triage"
    assert stratum(record, SplitSettings(stratify=("task", "label"))) == "triage\x00心内科"
    assert stratum(row(2), SplitSettings(stratify=("label",))) == ""
