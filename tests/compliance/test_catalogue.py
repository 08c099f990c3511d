from __future__ import annotations

from dataclasses import replace

import pytest

from metier import packs
from metier.compliance import ComplianceSettings, rules
from metier.compliance.checks import APPROVAL, CHECKS
from metier.errors import ConfigError, PackError
from metier.packs.spec import Control

CORE = ["DG-01", "DG-05", "DG-06", "DG-06-base", "DG-07", "LN-01", "QA-01", "QA-03", "SC-03", "SC-06", "SX-01"]


def test_the_core_s_controls_are_all_implemented_and_all_but_retention_are_critical() -> None:
    found = {rule.id: rule for rule in rules(replace(packs.load("example"), controls=()), ComplianceSettings())}
    assert list(found) == CORE
    assert all(rule.check in {*CHECKS, APPROVAL} for rule in found.values())
    assert [rule.id for rule in found.values() if not rule.critical] == ["QA-03"]
    assert {"GDPR", "PIPL", "AI Act", "GenAI Measures"} <= {name for rule in found.values() for name in rule.regimes}
    assert all({"en", "zh"} <= set(rule.title) for rule in found.values())


@pytest.mark.parametrize("name", ["medical", "finance", "law", "example"])
def test_every_pack_s_controls_join_those_of_the_core(name: str) -> None:
    pack = packs.load(name)
    found = {rule.id: rule for rule in rules(pack, ComplianceSettings())}
    assert set(found) == {*CORE, *(control.id for control in pack.controls)}
    assert all(found[name].critical for name in CORE if name != "QA-03"), "a pack never makes a critical control of the core less than that"
    assert all(rule.regimes for rule in found.values())


def test_a_pack_refines_a_control_of_the_core_clauses_add_up() -> None:
    found = {rule.id: rule for rule in rules(packs.load("medical"), ComplianceSettings())}
    assert found["DG-01"].clause == "GDPR 4(5), 25; PIPL 51, 73; HIPAA 164.514(b)(2)"
    assert found["DG-01"].regimes == ("GDPR", "PIPL", "HIPAA")
    assert found["DG-05"].by == "both"
    assert found["DG-05"].clause.count("GDPR") == 1


def test_a_pack_cannot_put_another_check_under_a_core_id() -> None:
    control = Control(id="LN-01", clause="House rule", title={"en": "x", "zh": "x"}, check="attestation")
    with pytest.raises(PackError, match="in the core it is 'lineage'"):
        rules(replace(packs.load("example"), controls=(control,)), ComplianceSettings())


def test_a_control_s_id_is_a_plain_name() -> None:
    with pytest.raises(ValueError, match="pattern"):
        Control(id="../../x", clause="House rule", title={"en": "x"}, check="attestation")


def test_settings_change_thresholds_and_set_aside_with_a_reason() -> None:
    settings = ComplianceSettings(thresholds={"DG-01": 0.01}, not_applicable={"BK-01": "no hive has a number"})
    found = {rule.id: rule for rule in rules(packs.load("example"), settings)}
    assert found["DG-01"].threshold == 0.01
    assert found["BK-01"].set_aside == "no hive has a number"


def test_all_faults_of_the_settings_are_said_at_once() -> None:
    settings = ComplianceSettings(thresholds={"DG-1": 0.01}, not_applicable={"BK-02": "x", "SX-01": "we are two", "LN-01": "x"}, regimes=("GDRP",))
    with pytest.raises(ConfigError) as raised:
        rules(packs.load("example"), settings)
    text = str(raised.value)
    for said in ("'DG-1'", "did you mean 'DG-01'", "'BK-02'", "SX-01 holds the evidence together", "LN-01 holds", "did you mean 'GDPR'"):
        assert said in text


@pytest.mark.parametrize("bad", [{"not_applicable": {"BK-01": " "}}, {"thresholds": {"DG-01": float("nan")}}, {"thresholds": {"DG-01": float("inf")}}])
def test_a_reason_that_is_empty_and_a_threshold_that_is_no_number_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match=r"reason|finite"):
        ComplianceSettings(**bad)


def test_naming_regimes_sets_aside_what_only_a_pack_asks_for_under_others() -> None:
    found = {rule.id: rule for rule in rules(packs.load("medical"), ComplianceSettings(regimes=("pipl",)))}
    assert found["LG-01"].set_aside == "not mapped to the regimes that the project names"
    assert found["DG-02"].set_aside is None
    assert all(found[name].set_aside is None for name in CORE)
