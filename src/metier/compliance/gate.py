"""The gate: a pure function of evidence, controls and approvals. The same three always give the same decision.

A control passes only on whole evidence: with nothing measured, a number that is not one, or a check that this version does not
have, it fails or waits. A critical control that fails makes the verdict `fail`; one that waits makes it `awaiting`, unless
somebody else than the author has taken it upon themselves by name. Statuses never say more than that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from metier.compliance.catalogue import Rule
from metier.compliance.checks import APPROVAL, ATTESTATION, CHECKS
from metier.compliance.measurement import Measurement
from metier.people import same_person

__all__ = ["CRITICAL_WEIGHT", "Approval", "Decision", "Findings", "Judged", "decide"]

Status: TypeAlias = Literal["pass", "fail", "not applicable", "awaiting attestation"]
Verdict: TypeAlias = Literal["pass", "fail", "awaiting"]

CRITICAL_WEIGHT = 3
"""How much more a critical control counts in coverage and pass rate."""


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's approval of one evidence, with the controls that they attest by name."""

    by: str
    evidence: str
    controls: tuple[str, ...] = ()
    note: str = ""
    time: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """The evidence as the gate needs it: its digest, its author, and what was found for each control."""

    digest: str
    author: str
    measured: Mapping[str, Measurement]


@dataclass(frozen=True, slots=True)
class Judged:
    """One control, decided: its status and why. `accepted` are those who took it upon themselves although no evidence decides it."""

    id: str
    clause: str
    check: str
    status: Status
    why: str
    critical: bool
    measured: float | None
    threshold: float | None
    attested: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        """Whether a release has to wait for this control."""
        return self.critical and (self.status == "fail" or (self.status == "awaiting attestation" and not self.accepted))


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict, every control behind it, and for each regime how much was decided and how much of that passed."""

    verdict: Verdict
    evidence: str
    author: str
    approved: tuple[str, ...]
    controls: tuple[Judged, ...]
    regimes: Mapping[str, Mapping[str, Any]]

    @property
    def blocking(self) -> tuple[Judged, ...]:
        """The controls that keep this from being released."""
        return tuple(item for item in self.controls if item.blocks)

    def as_facts(self) -> dict[str, Any]:
        """Return the decision in its JSON form."""
        controls = {item.id: {key: value for key, value in asdict(item).items() if key != "id"} | {"blocks": item.blocks} for item in self.controls}
        for entry in controls.values():
            entry["attested"], entry["accepted"] = list(entry["attested"]), list(entry["accepted"])
        regimes = {name: dict(entry) for name, entry in self.regimes.items()}
        return {
            "verdict": self.verdict,
            "evidence": self.evidence,
            "author": self.author,
            "approved_by": list(self.approved),
            "controls": controls,
            "regimes": regimes,
        }


def decide(evidence: Findings, controls: Iterable[Rule], approvals: Iterable[Approval]) -> Decision:
    """Decide every control and return the verdict. Neither the order of controls nor that of approvals matters.

    Approvals of other evidence, and those by the author under any writing of their name, do not count.
    """
    counted = sorted({item for item in approvals if item.evidence == evidence.digest and not same_person(item.by, evidence.author)}, key=_order)
    wanted = sorted(controls, key=lambda rule: rule.id)
    judged = tuple(_judge(rule, evidence.measured.get(rule.id), counted) for rule in wanted)
    failed = any(item.critical and item.status == "fail" for item in judged)
    waits = any(item.blocks for item in judged)
    verdict: Verdict = "fail" if failed else "awaiting" if waits or not judged else "pass"
    names = tuple(dict.fromkeys(item.by for item in counted))
    return Decision(verdict, evidence.digest, evidence.author, names, judged, _regimes(wanted, judged))


def _order(item: Approval) -> tuple[str, ...]:
    return (item.by, item.time, item.digest, item.note, *item.controls)


def _judge(rule: Rule, found: Measurement | None, approvals: Sequence[Approval]) -> Judged:
    value = found.value if found is not None else None

    def say(status: Status, why: str, *, attested: tuple[str, ...] = (), accepted: tuple[str, ...] = ()) -> Judged:
        shown = value if value is not None and math.isfinite(value) else None
        return Judged(rule.id, rule.clause, rule.check, status, why, rule.critical, shown, rule.threshold, attested, accepted)

    if rule.set_aside is not None:
        return say("not applicable", rule.set_aside)
    if rule.check == APPROVAL:
        value = float(len(approvals))
        needed = max(1.0, rule.threshold or 0.0)
        names = ", ".join(dict.fromkeys(item.by for item in approvals))
        return say("pass", f"approved by {names}") if value >= needed else say("awaiting attestation", "nobody but the author has approved this evidence yet")
    names_of = tuple(dict.fromkeys(item.by for item in approvals if rule.id in item.controls))
    if rule.check == ATTESTATION:
        return say("pass", _by(names_of), attested=names_of) if names_of else say("awaiting attestation", "only a person can attest this")
    status, why = _machine(rule, found)
    if status == "pass" and rule.by != "machine":
        why = f"{why}; {_by(names_of)}" if names_of else f"{why}; a person has to attest the rest"
        return say("pass" if names_of else "awaiting attestation", why, attested=names_of)
    if status == "awaiting attestation" and names_of:
        return say(status, f"not decided: {why}; taken upon themselves by {', '.join(names_of)}", accepted=names_of)
    return say(status, f"not decided: {why}" if status == "awaiting attestation" else why)


def _by(names: Sequence[str]) -> str:
    return f"attested by {', '.join(names)}"


def _machine(rule: Rule, found: Measurement | None) -> tuple[Status, str]:
    if rule.check not in CHECKS:
        return "awaiting attestation", f"the check {rule.check} is not implemented in this version"
    if found is None:
        return "awaiting attestation", "the evidence holds nothing on it"
    numbers = [number for number in (found.value, found.low, found.high) if number is not None]
    if not all(math.isfinite(number) for number in numbers):
        return "fail", "a measured number is not a finite one"
    if found.faults:
        return "fail", "; ".join(found.faults)
    if found.undecided:
        return "awaiting attestation", found.undecided
    if found.n < 1 or found.value is None:
        return "fail", "nothing was measured"
    if rule.threshold is None or not math.isfinite(rule.threshold):
        return "awaiting attestation", "the control has no threshold"
    return _tested(found, found.value, rule.threshold)


def _tested(found: Measurement, value: float, threshold: float) -> tuple[Status, str]:
    """Test the bound of the interval that lies on the bad side; a threshold of 0 is a count that has to be 0, which no bound can show."""
    lower = found.better == "lower"
    bound = found.high if lower else found.low
    tested = value if bound is None or (lower and threshold == 0) else bound
    sign = "at most" if lower else "at least"
    wanted = f"{sign} {threshold:g} is asked"
    said = f"{value:.4g}" if tested == value else f"{value:.4g}, bound {tested:.4g}"
    if tested <= threshold if lower else tested >= threshold:
        return "pass", f"{said}; {wanted} (n {found.n})"
    if value > threshold if lower else value < threshold:
        return "fail", f"{said}; {wanted} (n {found.n})"
    return "awaiting attestation", f"{said}; {wanted}, and {found.n} are too few to show it"


def _regimes(wanted: Sequence[Rule], judged: Sequence[Judged]) -> dict[str, dict[str, Any]]:
    """Return for each regime coverage = decided / applicable and pass rate = passed / decided; a critical control counts three times."""
    found: dict[str, list[Judged]] = {}
    for rule, item in zip(wanted, judged, strict=True):
        for name in rule.regimes:
            found.setdefault(name, []).append(item)
    return {name: _scored(items) for name, items in sorted(found.items())}


def _scored(items: Sequence[Judged]) -> dict[str, Any]:
    weights = dict.fromkeys(("pass", "fail", "awaiting attestation"), 0)
    for item in items:
        if item.status in weights:
            weights[item.status] += CRITICAL_WEIGHT if item.critical else 1
    decided = weights["pass"] + weights["fail"]
    applicable = decided + weights["awaiting attestation"]
    return {
        "coverage": decided / applicable if applicable else None,
        "pass_rate": weights["pass"] / decided if decided else None,
        "blocked": any(item.critical and item.status == "fail" for item in items),
        "controls": [item.id for item in items],
    }
