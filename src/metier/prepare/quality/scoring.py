"""From what was measured to a score and a verdict that explains itself. No text and no model here: only numbers and their reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from metier.prepare.quality.settings import QualitySettings, weights_by_name

__all__ = ["DIMENSIONS", "Assessment", "Dimension", "Verdict", "assessed", "weighted"]

Verdict: TypeAlias = Literal["use", "review", "drop", "not measured"]

DIMENSIONS = ("facts", "relevance", "fluency", "instruction", "safety", "information", "format")


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension of one record: 0 (bad) to 1 (good), or None where it was not measured, which is not 0; by what means, and why."""

    value: float | None
    how: str
    why: tuple[str, ...] = ()

    def explained(self, name: str) -> str:
        """Return the dimension in words: `relevance 0.21: above 60 % of 512 random pairs`."""
        if self.value is None:
            return f"{name} not measured: {'; '.join(self.why) or self.how}"
        return f"{name} {self.value:.2f}" + (f": {'; '.join(self.why)}" if self.why else "")


@dataclass(frozen=True, slots=True)
class Assessment:
    """What is said of one record. `score` is the dialogue score where any of its dimensions was measured, else that of the matrix."""

    record_id: str
    language: str | None
    dimensions: Mapping[str, Dimension]
    matrix: float | None
    dialogue: float | None
    score: float | None
    verdict: Verdict
    reasons: tuple[str, ...]


def weighted(dimensions: Mapping[str, Dimension], weights: Mapping[str, float]) -> tuple[float | None, float]:
    """Return the weighted mean over the dimensions that were measured, and their share of the weights (0 to 1)."""
    total = 0.0
    measured = 0.0
    for name, weight in weights.items():
        value = dimensions[name].value
        if value is not None:
            total += weight * value
            measured += weight
    return (total / measured if measured else None), measured


def assessed(record_id: str, language: str | None, dimensions: Mapping[str, Dimension], *, paired: bool, settings: QualitySettings) -> Assessment:
    """Return scores, verdict and reasons of a record.

    Weights of dimensions that were not measured are shared out among the others in proportion, and a reason says so. An answer that
    is irrelevant (`thresholds.irrelevant`, value 0) or unsafe (value 0) has the dialogue score 0.
    """
    matrix, known = weighted(dimensions, weights_by_name(settings.matrix))
    dialogue: float | None = None
    reasons: list[str] = []
    if paired:
        dialogue, share = weighted(dimensions, weights_by_name(settings.dialogue))
        known = known if dialogue is None else share
        for name, word in (("relevance", "irrelevant"), ("safety", "unsafe")):
            if dimensions[name].value == 0:
                dialogue = 0.0
                reasons.append(f"{word}: the score is 0 whatever the rest")
    judged_as_dialogue = dialogue is not None
    score = dialogue if judged_as_dialogue else matrix
    bounds = settings.thresholds
    verdict: Verdict = "not measured" if score is None else "use" if score > bounds.use else "review" if score >= bounds.review else "drop"
    if score is not None:
        place = {"use": f"above {bounds.use:g}", "review": f"between {bounds.review:g} and {bounds.use:g}", "drop": f"below {bounds.review:g}"}
        reasons.insert(0, f"{'dialogue' if judged_as_dialogue else 'matrix'} score {score:.2f} is {place[verdict]}")
    names = list(weights_by_name(settings.dialogue if judged_as_dialogue else settings.matrix))
    if known < 1 and score is not None:
        reasons.append(f"measured are {known:.0%} of the weights, scaled to the whole")
    reasons += [dimensions[name].explained(name) for name in _by_value(dimensions, [*names, "safety"] if judged_as_dialogue else names)]
    return Assessment(record_id, language, dimensions, matrix, dialogue, score, verdict, tuple(reasons))


def _by_value(dimensions: Mapping[str, Dimension], names: list[str]) -> list[str]:
    """Return the dimensions that lost something, worst first, then those that were not measured."""
    lost = [(value, name) for name in names if (value := dimensions[name].value) is not None and (value < 1)]
    return [name for _, name in sorted(lost)] + [name for name in names if dimensions[name].value is None]
