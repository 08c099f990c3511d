import pytest

from metier.errors import PackError
from metier.packs.spec import Examples, Identifier
from metier.privacy.classes import coverage, regime_classes
from metier.privacy.general import rules_of_all


def test_every_class_of_safe_harbor_that_can_stand_in_text_has_rules() -> None:
    covered = coverage(rules_of_all()[0], "hipaa")
    assert [name for name, kinds in covered.items() if not kinds] == []
    assert set(covered) == {f"hipaa-{number}" for number in range(1, 19)} - {"hipaa-16", "hipaa-17"}
    assert {"US_SSN"} <= set(covered["hipaa-7"])
    assert {"DATE", "AGE_OVER_89", "DATE_OF_BIRTH"} <= set(covered["hipaa-3"])


def test_what_cannot_stand_in_text_is_not_said_to_be_covered() -> None:
    assert {item.id for item in regime_classes() if not item.text} >= {"hipaa-16", "hipaa-17", "pipl-biometric"}


def test_classes_without_rules_are_said() -> None:
    covered = coverage(rules_of_all()[0], "pipl")
    assert "CN_RESIDENT_ID" in covered["pipl-identity"]
    assert covered["pipl-religion"] == ()


def test_a_class_that_no_regime_has_is_refused() -> None:
    wrong = Identifier(entity="CODE", pattern="a", classes=("hipaa-19",), examples=Examples(match=("a",), reject=("b",)))
    with pytest.raises(PackError, match="'hipaa-19', which no regime has"):
        coverage([wrong])


def test_every_rule_says_its_classes() -> None:
    assert {item.entity for item in rules_of_all()[0] if not item.classes} <= {"HIVE_NUMBER"}
