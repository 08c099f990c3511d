from __future__ import annotations

import math

import pytest
from scipy.stats import beta

from metier.compliance.measurement import LedgerFacts, Measurement, from_facts, proportion_upper, sound


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 100), (0, 3000), (1, 100), (3, 1000), (17, 40), (99, 100)])
def test_the_upper_bound_is_that_of_clopper_and_pearson(hits: int, n: int) -> None:
    assert proportion_upper(hits, n) == pytest.approx(beta.ppf(0.95, hits + 1, n - hits), abs=1e-9)


def test_the_upper_bound_is_close_to_the_rule_of_three_and_1_where_nothing_is_known() -> None:
    assert proportion_upper(0, 3000) == pytest.approx(3 / 3000, rel=0.01)
    assert proportion_upper(0, 0) == proportion_upper(5, 5) == 1.0


def test_a_number_that_is_none_becomes_a_fault_and_has_a_json_form() -> None:
    measured = Measurement("x", math.nan, 3, "", "lower", "", low=0.0, high=math.inf, confidence=0.95)
    with pytest.raises(ValueError, match="not finite"):
        measured.as_facts()
    cleaned = sound(measured)
    assert (cleaned.value, cleaned.low, cleaned.high) == (None, 0.0, None)
    assert cleaned.faults == ("the measured value and high is not a finite number",)
    assert from_facts(cleaned.as_facts()) == cleaned


def test_a_log_that_grows_is_the_same_for_evidence_and_a_damaged_one_is_not() -> None:
    assert LedgerFacts(1, "aa", True).digest == LedgerFacts(9, "bb", True).digest
    assert LedgerFacts(1, "aa", False, "entry 3 was changed").digest != LedgerFacts(1, "aa", True).digest
