from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metier.compliance.catalogue import Rule
from metier.compliance.checks import APPROVAL, ATTESTATION, CHECKS
from metier.compliance.gate import Approval, Decision, Findings, decide
from metier.compliance.measurement import Measurement, proportion_upper

DIGEST = "e" * 64
ORDER = {"fail": 0, "awaiting attestation": 1, "awaiting": 1, "pass": 2}


def rule(
    name: str = "C-01", *, check: str = "lineage", threshold: float | None = 1.0, critical: bool = True, by: str = "machine", clause: str = "GDPR 5"
) -> Rule:
    return Rule(name, clause, {"en": name}, check, threshold, critical, by, "core")


def found(value: float | None = 1.0, *, n: int = 10, better: str = "higher", **more: object) -> Measurement:
    return Measurement("lineage", value, n, "share", better, "counted", **more)


def approval(by: str = "Zhang Wei", *controls: str, evidence: str = DIGEST) -> Approval:
    return Approval(by, evidence, controls, time="2026-01-01T00:00:00Z")


def one(a_rule: Rule, measured: Measurement | None, *approvals: Approval) -> tuple[str, str, str]:
    decision = decide(Findings(DIGEST, "Ada Author", {} if measured is None else {a_rule.id: measured}), [a_rule], approvals)
    (judged,) = decision.controls
    return judged.status, decision.verdict, judged.why


def test_a_bound_is_tested_not_the_value() -> None:
    share = rule(threshold=0.95)
    assert one(share, found(0.97, low=0.96, high=1.0, confidence=0.95))[:2] == ("pass", "pass")
    status, verdict, why = one(share, found(0.97, low=0.90, high=1.0, confidence=0.95))
    assert (status, verdict) == ("awaiting attestation", "awaiting")
    assert "0.97, bound 0.9" in why
    assert "too few" in why
    assert one(share, found(0.90, low=0.85, high=0.94, confidence=0.95))[:2] == ("fail", "fail")


@pytest.mark.parametrize(("n", "status"), [(2995, "pass"), (2994, "awaiting attestation")])
def test_no_hit_shows_a_tenth_of_a_percent_from_2995_records_on(n: int, status: str) -> None:
    scan = found(0.0, n=n, better="lower", low=0.0, high=proportion_upper(0, n), confidence=0.95)
    assert one(rule(check="identifier_scan", threshold=0.001), scan)[0] == status
    assert one(rule(check="identifier_scan", threshold=0.0), scan)[0] == "pass", "a threshold of 0 is a count"


@pytest.mark.parametrize(
    ("measured", "status", "said"),
    [
        (None, "awaiting attestation", "holds nothing"),
        (found(math.nan), "fail", "not a finite"),
        (found(math.inf), "fail", "not a finite"),
        (found(1.0, low=math.nan, high=1.0, confidence=0.95), "fail", "not a finite"),
        (found(1.0, n=0), "fail", "nothing was measured"),
        (found(None), "fail", "nothing was measured"),
        (found(1.0, faults=("x.bin is not safetensors",)), "fail", "x.bin"),
        (found(1.0, undecided="the probe was not asked"), "awaiting attestation", "not asked"),
    ],
)
def test_bad_evidence_is_never_a_pass(measured: Measurement | None, status: str, said: str) -> None:
    got, verdict, why = one(rule(), measured)
    assert got == status
    assert verdict != "pass"
    assert said in why


def test_no_control_at_all_is_no_pass() -> None:
    assert decide(Findings(DIGEST, "Ada Author", {}), [], []).verdict == "awaiting"


def test_a_check_that_this_version_lacks_is_never_passed_and_blocks_until_somebody_takes_it_upon_themselves() -> None:
    unknown = rule(check="extraction", threshold=0.001)
    status, verdict, why = one(unknown, found(0.0))
    assert (status, verdict) == ("awaiting attestation", "awaiting")
    assert "not implemented in this version" in why
    status, verdict, why = one(unknown, None, approval("Zhang Wei", "C-01"))
    assert (status, verdict) == ("awaiting attestation", "pass")
    assert "taken upon themselves by Zhang Wei" in why


def test_nobody_can_approve_a_failure_away() -> None:
    assert one(rule(), found(0.5), approval("Zhang Wei", "C-01"))[:2] == ("fail", "fail")


def test_a_person_s_control_waits_for_a_person() -> None:
    person = rule(check=ATTESTATION, by="person", threshold=None)
    assert one(person, None)[:2] == ("awaiting attestation", "awaiting")
    assert one(person, None, approval("Zhang Wei"))[0] == "awaiting attestation", "an approval that does not name the control"
    assert one(person, None, approval("Zhang Wei", "C-01"))[:2] == ("pass", "pass")


def test_a_control_of_machine_and_person_needs_both() -> None:
    both = rule(by="both")
    assert one(both, found())[0] == "awaiting attestation"
    assert one(both, found(), approval("Zhang Wei", "C-01"))[0] == "pass"
    assert one(both, found(0.5), approval("Zhang Wei", "C-01"))[0] == "fail"


def test_approval_by_the_author_or_of_other_evidence_does_not_count() -> None:
    separate = rule(check=APPROVAL)
    for given_by in (approval("ada author"), approval("\uff21da Author "), approval("Zhang Wei", evidence="f" * 64)):
        assert one(separate, None, given_by)[:2] == ("awaiting attestation", "awaiting")
    status, verdict, why = one(separate, None, approval("ada author"), approval("Zhang Wei"))
    assert (status, verdict, why) == ("pass", "pass", "approved by Zhang Wei")


def test_what_is_set_aside_is_not_applicable_with_its_reason_and_counts_nowhere() -> None:
    aside = replace(rule("C-02"), set_aside="read by staff only")
    decision = decide(Findings(DIGEST, "Ada Author", {"C-01": found()}), [rule(), aside], [])
    assert [(item.status, item.why) for item in decision.controls][1] == ("not applicable", "read by staff only")
    assert decision.regimes["GDPR"]["coverage"] == 1.0
    assert decision.verdict == "pass"


def test_coverage_and_pass_rate_weigh_critical_controls_three_times() -> None:
    rules = [rule("C-1"), rule("C-2", critical=False), rule("C-3", critical=False), rule("C-4", critical=False, clause="PIPL 6")]
    decision = decide(Findings(DIGEST, "Ada Author", {"C-1": found(), "C-2": found(0.5)}), rules, [])
    assert decision.regimes["GDPR"] == {"coverage": 4 / 5, "pass_rate": 3 / 4, "blocked": False, "controls": ["C-1", "C-2", "C-3"]}
    assert decision.regimes["PIPL"] == {"coverage": 0.0, "pass_rate": None, "blocked": False, "controls": ["C-4"]}
    assert decision.verdict == "pass", "what is not critical does not block"


# Properties

NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 1))
MEASURED = st.builds(
    Measurement,
    check=st.just("lineage"),
    value=NUMBERS,
    n=st.integers(0, 5000),
    unit=st.just(""),
    better=st.sampled_from(["lower", "higher"]),
    how=st.just(""),
    low=NUMBERS,
    high=NUMBERS,
    confidence=st.none(),
    faults=st.lists(st.just("a fault"), max_size=2).map(tuple),
    undecided=st.one_of(st.none(), st.just("cannot be told")),
)
IDS = st.sampled_from(["A", "B", "C", "D", "E"])
RULES = st.lists(
    st.builds(
        Rule,
        id=IDS,
        clause=st.sampled_from(["GDPR 5", "PIPL 6; GDPR 7"]),
        title=st.just({"en": "a control"}),
        check=st.sampled_from([*CHECKS, APPROVAL, ATTESTATION, "not_there"]),
        threshold=st.one_of(st.none(), st.floats(0, 1)),
        critical=st.booleans(),
        by=st.sampled_from(["machine", "person", "both"]),
        origin=st.just("core"),
        set_aside=st.one_of(st.none(), st.just("a reason")),
    ),
    max_size=5,
    unique_by=lambda item: item.id,
)
EVIDENCE = st.dictionaries(IDS, MEASURED)
APPROVALS = st.lists(
    st.builds(
        Approval,
        by=st.sampled_from(["Zhang Wei", "Li Na", "Ada Author", "ADA AUTHOR"]),
        evidence=st.sampled_from([DIGEST, "f" * 64]),
        controls=st.lists(IDS, max_size=3, unique=True).map(tuple),
    ),
    max_size=4,
)


def ranks(decision: Decision) -> dict[str, int]:
    return {item.id: ORDER[item.status] for item in decision.controls if item.status != "not applicable"}


@given(EVIDENCE, RULES, APPROVALS, st.randoms())
def test_the_same_three_give_the_same_decision_in_any_order(evidence, rules, approvals, random) -> None:
    findings = Findings(DIGEST, "Ada Author", evidence)
    first = decide(findings, rules, approvals)
    random.shuffle(rules)
    random.shuffle(approvals)
    turned = Findings(DIGEST, "Ada Author", dict(reversed(evidence.items())))
    assert decide(turned, rules, [*approvals, *approvals]).as_facts() == first.as_facts()


@given(EVIDENCE, RULES, APPROVALS)
def test_worse_evidence_never_gives_a_better_decision(evidence, rules, approvals) -> None:
    before = decide(Findings(DIGEST, "Ada Author", evidence), rules, approvals)
    for name, measured in evidence.items():
        worse = [{**evidence, name: replace(measured, faults=(*measured.faults, "another"))}, {**evidence, name: replace(measured, n=0)}]
        worse.append({key: value for key, value in evidence.items() if key != name} if before.verdict != "fail" else evidence)
        for changed in worse:
            after = decide(Findings(DIGEST, "Ada Author", changed), rules, approvals)
            assert ORDER[after.verdict] <= ORDER[before.verdict]
            assert ranks(after).get(name, 0) <= max(1, ranks(before).get(name, 0))


@given(EVIDENCE, RULES, APPROVALS, st.sampled_from(["Zhang Wei", "Li Na"]), st.lists(IDS, max_size=3).map(tuple))
def test_one_more_approval_never_gives_a_worse_decision_and_the_author_s_none_at_all(evidence, rules, approvals, name, controls) -> None:
    findings = Findings(DIGEST, "Ada Author", evidence)
    before = decide(findings, rules, approvals)
    after = decide(findings, rules, [*approvals, Approval(name, DIGEST, controls)])
    assert ORDER[after.verdict] >= ORDER[before.verdict]
    assert all(rank >= ranks(before)[key] for key, rank in ranks(after).items())
    assert decide(findings, rules, [*approvals, Approval("Ada  Author", DIGEST, controls)]).as_facts() == before.as_facts()


@given(EVIDENCE, RULES, APPROVALS)
def test_a_pass_has_no_critical_control_that_fails_or_is_left_open(evidence, rules, approvals) -> None:
    decision = decide(Findings(DIGEST, "Ada Author", evidence), rules, approvals)
    assert (decision.verdict == "pass") == (bool(rules) and not decision.blocking)
    for item in decision.controls:
        measured = evidence.get(item.id)
        if item.status == "pass" and item.check in CHECKS:
            assert measured is not None
            assert not measured.faults
            assert measured.n > 0
            assert math.isfinite(measured.value)
