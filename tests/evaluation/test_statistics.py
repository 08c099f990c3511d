import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from metier.evaluation.measures import mean
from metier.evaluation.statistics import bootstrap_p, draw_weights, holm, interval, mcnemar, minimum_detectable, unanimous


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_mcnemar_equals_the_exact_binomial_test(gained: int, lost: int, same: int):
    base = [False] * gained + [True] * lost + [True] * same
    tuned = [True] * gained + [False] * lost + [True] * same
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert mcnemar(base, tuned) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand():
    # 6 gained, 1 lost: 2 * (C(7,0) + C(7,1)) / 2^7 = 16 / 128.
    assert mcnemar([False] * 6 + [True], [True] * 6 + [False]) == 0.125


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_weights_keep_the_size_of_each_stratum_and_depend_on_the_seed_alone():
    strata = ["zh"] * 3 + ["en"] * 5
    weights = draw_weights(strata, 50, seed=1)
    assert (weights[:, :3].sum(axis=1) == 3).all()
    assert (weights[:, 3:].sum(axis=1) == 5).all()
    assert (weights == draw_weights(strata, 50, seed=1)).all()
    assert (weights != draw_weights(strata, 50, seed=2)).any()


def test_the_interval_of_a_mean_is_that_of_scipy():
    values = np.random.default_rng(3).normal(size=80)
    measure = mean(values.tolist())
    ours = interval(measure.statistic(draw_weights(["a"] * 80, 6000, seed=0)), measure.point(), 0.95)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=6000, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(11)
    weights = draw_weights(["zh"] * 60 + ["en"] * 60, 400, seed=5)
    covered = 0
    for _ in range(300):
        right = np.concatenate([generator.random(60) < 0.6, generator.random(60) < 0.8]).astype(float)
        measure = mean(right.tolist(), binary=True)
        found = interval(measure.statistic(weights), measure.point(), 0.95)
        covered += found.low <= 0.7 <= found.high
    assert 0.90 <= covered / 300 <= 0.985


def test_the_paired_bootstrap_finds_the_p_of_the_normal_test():
    generator = np.random.default_rng(4)
    shift = generator.normal(0.2, 1.0, size=200)
    measure = mean(shift.tolist())
    p = bootstrap_p(measure.statistic(draw_weights(["a"] * 200, 20_000, seed=0)))
    z = shift.mean() / (shift.std(ddof=1) / math.sqrt(200))
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.01)


def test_bootstrap_p_is_never_zero_and_one_for_equal_sides():
    assert bootstrap_p(np.full(999, 0.3)) == pytest.approx(2 / 1000)
    assert bootstrap_p(np.zeros(99)) == 1.0
    assert bootstrap_p(np.full(5, np.nan)) == 1.0


@pytest.mark.parametrize(("points", "items"), [(0.03, 1740), (0.05, 630), (0.10, 160)])
def test_detectable_difference_with_a_fifth_of_discordant_pairs(points: float, items: int):
    assert minimum_detectable(math.sqrt(0.2 / items)) == pytest.approx(points, rel=0.02)


@pytest.mark.parametrize("n", [5, 40, 200])
def test_where_all_items_agree_the_bound_is_that_of_clopper_and_pearson(n: int):
    exact = stats.binomtest(n, n).proportion_ci(0.95, method="exact")
    found = unanimous(1.0, n, 0.95, lowest=0.0)
    assert (found.low, found.high) == (pytest.approx(exact.low), 1.0)
    assert unanimous(0.0, n, 0.95, lowest=0.0).high == pytest.approx(1 - exact.low)


def test_resamples_without_a_value_are_left_out_of_the_interval():
    found = interval(np.array([0.1, np.nan, 0.3]), 0.2, 0.9)
    assert 0.1 <= found.low < found.high <= 0.3
    assert math.isnan(interval(np.array([np.nan]), 0.2, 0.9).low)
