"""What a check found: a number with its interval and n, what is plainly wrong, and how it was measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

__all__ = ["LedgerFacts", "Measurement", "from_facts", "proportion_upper", "sound"]

Better = Literal["lower", "higher"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One check's finding.

    `value` lies between `low` and `high` with `confidence` (None where it was counted in full); `better` says which side of a
    threshold is good. `faults` are findings that no threshold excuses. `undecided` says why a machine cannot tell.
    """

    check: str
    value: float | None
    n: int
    unit: str
    better: Better
    how: str
    low: float | None = None
    high: float | None = None
    confidence: float | None = None
    faults: tuple[str, ...] = ()
    undecided: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_facts(self) -> dict[str, Any]:
        """Return the finding in its JSON form. Raises ValueError for a number that is not finite; see `sound`."""
        if not all(math.isfinite(number) for number in (self.value, self.low, self.high) if number is not None):
            raise ValueError(f"{self.check}: a number is not finite")
        interval = None if self.confidence is None else {"low": self.low, "high": self.high, "confidence": self.confidence}
        return {
            "check": self.check,
            "measured": self.value,
            "unit": self.unit,
            "better": self.better,
            "interval": interval,
            "n": self.n,
            "faults": list(self.faults),
            "undecided": self.undecided,
            "inputs": dict(self.inputs),
            "how": self.how,
            "details": dict(self.details),
        }


def from_facts(facts: Mapping[str, Any]) -> Measurement:
    """Return the finding that `as_facts` wrote. Raises KeyError for facts that are not whole."""
    interval = facts["interval"] or {"low": None, "high": None, "confidence": None}
    return Measurement(
        check=facts["check"],
        value=facts["measured"],
        n=facts["n"],
        unit=facts["unit"],
        better=facts["better"],
        how=facts["how"],
        low=interval["low"],
        high=interval["high"],
        confidence=interval["confidence"],
        faults=tuple(facts["faults"]),
        undecided=facts["undecided"],
        inputs=facts["inputs"],
        details=facts["details"],
    )


def sound(found: Measurement) -> Measurement:
    """Return a finding whose numbers have a JSON form: one that is not finite becomes a fault, never a pass."""
    odd = [name for name in ("value", "low", "high") if (number := getattr(found, name)) is not None and not math.isfinite(number)]
    if not odd:
        return found
    fault = f"the measured {' and '.join(odd)} is not a finite number"
    kept = {name: None if name in odd else getattr(found, name) for name in ("value", "low", "high")}
    return replace(found, faults=(*found.faults, fault), value=kept["value"], low=kept["low"], high=kept["high"])


@dataclass(frozen=True, slots=True)
class LedgerFacts:
    """What was found when the log of events was verified. Its growth does not make old evidence another one; its damage does."""

    size: int
    root: str
    intact: bool
    fault: str | None = None

    @property
    def digest(self) -> str:
        """What takes part in the identity of evidence: whether the log is intact, and what is wrong with it."""
        return f"intact:{self.intact}:{self.fault or ''}"


def proportion_upper(hits: int, n: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper bound of a proportion: Clopper and Pearson, Biometrika 26 (1934).

    With no hit it is 1 - (1 - confidence)^(1/n), close to the rule of three, 3/n. The bound is found by bisection to 1e-12.
    """
    if n <= 0 or hits >= n:
        return 1.0
    if hits == 0:
        return 1.0 - math.exp(math.log1p(-confidence) / n)
    low, high = hits / n, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if _at_most(hits, n, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(hits: int, n: int, p: float) -> float:
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p) for k in range(hits + 1)]
    return math.fsum(math.exp(value) for value in logs)
