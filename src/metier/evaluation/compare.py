"""Base against tuned on the same items: intervals, paired tests, verdicts, and format gains apart from knowledge gains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from metier.evaluation.ask import Side
from metier.evaluation.items import Answer, Task
from metier.evaluation.measures import Measure
from metier.evaluation.retention import RETENTION, summarise
from metier.evaluation.scorers import Graded, Grader, Tools, higher_is_better
from metier.evaluation.settings import EvaluationSettings
from metier.evaluation.statistics import Floats, Interval, bootstrap_p, draw_weights, holm, interval, mcnemar, minimum_detectable, unanimous

__all__ = ["GAIN", "LOSS", "SAME", "Compared", "Comparison", "chance_facts", "compare_graded", "compare_task", "format_split", "retention_facts", "settle"]

GAIN, SAME, LOSS = "gain", "no clear difference", "loss"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of one task on both sides; `delta` is tuned minus base, `p` two-sided and not yet adjusted."""

    task: str
    metric: str
    higher_is_better: bool
    base: Interval
    tuned: Interval
    delta: Interval
    n: int
    invalid: Mapping[str, int]
    p: float
    minimum_detectable: float
    languages: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Compared:
    """One task, graded on both sides, with its comparisons in the order of its metrics and each item's score by metric."""

    task: Task
    graded: Mapping[Side, Sequence[Graded]]
    measures: Mapping[str, Mapping[Side, Measure]]
    comparisons: Sequence[Comparison]
    weights: Floats


def compare_task(task: Task, answers: Mapping[Side, Mapping[str, Answer]], tools: Tools, settings: EvaluationSettings, comparisons: int) -> Compared:
    """Grade both sides of a task and compare them on every metric; see `compare_graded`."""
    grader = Grader(task, tools)
    sides: tuple[Side, ...] = ("base", "tuned")
    graded: dict[Side, Sequence[Graded]] = {side: [grader.grade(item, answers[side][item.id]) for item in task.items] for side in sides}
    measures = {metric.metric: {side: grader.measure(metric.metric, graded[side]) for side in sides} for metric in task.metrics}
    return compare_graded(task, graded, measures, settings, comparisons)


def compare_graded(
    task: Task,
    graded: Mapping[Side, Sequence[Graded]],
    measures: Mapping[str, Mapping[Side, Measure]],
    settings: EvaluationSettings,
    comparisons: int,
) -> Compared:
    """Compare both sides of a task on the metrics that there are measures of, in the task's order.

    `comparisons` is how many there are in all: p has to be able to pass Holm's first step, alpha / comparisons, so at least
    4 * comparisons / alpha resamples are drawn (p >= 2 / (resamples + 1)).
    """
    strata = [f"{item.language}/{item.family}" for item in task.items]
    resamples = max(settings.resamples, math.ceil(4 * comparisons / (1 - settings.confidence)))
    weights = draw_weights(strata, resamples, settings.seed)
    invalid: dict[str, int] = {side: sum(not one.valid for one in rows) for side, rows in graded.items()}
    found = []
    for metric in task.metrics:
        if metric.metric not in measures:
            continue
        pair = measures[metric.metric]
        better = higher_is_better(metric.metric, metric.higher_is_better)
        found.append(_compare(task, metric.metric, pair, weights, settings.confidence, better=better, invalid=invalid))
    return Compared(task, graded, measures, found, weights)


def _compare(
    task: Task, metric: str, pair: Mapping[Side, Measure], weights: Floats, confidence: float, *, better: bool, invalid: Mapping[str, int]
) -> Comparison:
    base, tuned = pair["base"], pair["tuned"]
    before, after = base.statistic(weights), tuned.statistic(weights)
    first, second = base.point(), tuned.point()
    n = len(task.items)
    if base.kind == tuned.kind == "binary":
        p = mcnemar([bool(value) for value in base.values], [bool(value) for value in tuned.values])
        # Without any discordant pair the standard error is unknown, not zero: one pair is assumed.
        discordant = max(1, int((base.values != tuned.values).sum())) / n
        error = math.sqrt(discordant / n)
    else:
        p = bootstrap_p(after - before)
        defined = (after - before)[~np.isnan(after - before)]
        # Where no resample differs the standard error is unknown, not zero.
        error = float(defined.std(ddof=1)) if defined.size > 1 and defined.any() else math.nan
    return Comparison(
        task=task.name,
        metric=metric,
        higher_is_better=better,
        base=_side_interval(base, before, first, confidence),
        tuned=_side_interval(tuned, after, second, confidence),
        delta=_delta_interval(pair, after - before, second - first, confidence),
        n=n,
        invalid=invalid,
        p=p,
        minimum_detectable=minimum_detectable(error, confidence=confidence),
        languages=_by_language(task, pair, weights, confidence),
    )


def _side_interval(measure: Measure, draws: Floats, point: float, confidence: float) -> Interval:
    if measure.kind == "binary" and point in (0.0, 1.0):
        return unanimous(point, len(measure.values), confidence, lowest=0.0)
    return interval(draws, point, confidence)


def _delta_interval(pair: Mapping[Side, Measure], draws: Floats, point: float, confidence: float) -> Interval:
    changes = pair["tuned"].values - pair["base"].values
    if pair["base"].kind == "binary" and (changes == point).all():
        return unanimous(point, len(changes), confidence, lowest=-1.0, step=1.0 + abs(point))
    return interval(draws, point, confidence)


def _by_language(task: Task, pair: Mapping[Side, Measure], weights: Floats, confidence: float) -> dict[str, dict[str, Any]]:
    names = sorted({item.language for item in task.items})
    if len(names) < 2:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        members = np.asarray([float(item.language == name) for item in task.items])
        entry: dict[str, Any] = {"n": int(members.sum())}
        for side, measure in pair.items():
            point = float(measure.statistic(members[None, :])[0])
            entry[side] = interval(measure.statistic(weights * members), point, confidence).as_facts()
        found[name] = entry
    return found


def settle(compared: Sequence[Compared], confidence: float) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the summary table {task: {metric: facts}} with the verdicts.

    Holm's correction runs over the tasks' first metrics (the family that the claim is made on) and apart from it over all
    other figures. `gain` or `loss` needs an adjusted p below 1 - confidence and an interval of the difference without zero.
    """
    firsts = [one.comparisons[0] for one in compared]
    others = [comparison for one in compared for comparison in one.comparisons[1:]]
    adjusted: dict[tuple[str, str], float] = {}
    for family in (firsts, others):
        for comparison, p in zip(family, holm([item.p for item in family]), strict=True):
            adjusted[comparison.task, comparison.metric] = p
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for comparison in [*firsts, *others]:
        p = adjusted[comparison.task, comparison.metric]
        table.setdefault(comparison.task, {})[comparison.metric] = _facts(comparison, p, confidence)
    return table


def _facts(comparison: Comparison, adjusted: float, confidence: float) -> dict[str, Any]:
    smallest = comparison.minimum_detectable
    facts: dict[str, Any] = {
        "base": comparison.base.as_facts(),
        "tuned": comparison.tuned.as_facts(),
        "delta": comparison.delta.as_facts(),
        "n": comparison.n,
        "invalid": dict(comparison.invalid),
        "p": comparison.p,
        "p_adjusted": adjusted,
        "minimum_detectable": None if math.isnan(smallest) else smallest,
        "higher_is_better": comparison.higher_is_better,
        "verdict": _verdict(comparison, adjusted, confidence),
    }
    if comparison.languages:
        facts["languages"] = {name: dict(entry) for name, entry in comparison.languages.items()}
    return facts


def _verdict(comparison: Comparison, adjusted: float, confidence: float) -> str:
    delta = comparison.delta
    if math.isnan(delta.low) or adjusted >= 1 - confidence or delta.low <= 0 <= delta.high:
        return SAME
    return GAIN if (delta.value > 0) == comparison.higher_is_better else LOSS


def format_split(one: Compared) -> dict[str, Any] | None:
    """Return format and knowledge of a written task apart, or None for tasks that choose or have no averaged metric.

    F is the share of valid answers, K the mean score of the valid ones, total = F * K (invalid answers score 0):
    delta(total) = dF * K(base) + F(tuned) * dK. With no valid answer of the base K(base) is unknown, and so are both terms.
    """
    metric = next((c.metric for c in one.comparisons if one.measures[c.metric]["base"].kind != "corpus"), None)
    if one.task.kind != "generate" or metric is None:
        return None
    sides: dict[str, dict[str, Any]] = {}
    for side, graded in one.graded.items():
        valid = np.asarray([item.valid for item in graded])
        values = one.measures[metric][side].values
        share = float(valid.mean())
        score = float(np.nanmean(values[valid])) if (valid & ~np.isnan(values)).any() else None
        sides[side] = {
            "valid_rate": share,
            "score_if_valid": score,
            "total": 0.0 if score is None else share * score,
            "abstained": sum(item.abstained for item in graded),
        }
    base, tuned = sides["base"], sides["tuned"]
    delta: dict[str, Any] = {"total": tuned["total"] - base["total"], "format": None, "knowledge": None}
    if base["score_if_valid"] is not None:
        delta["format"] = (tuned["valid_rate"] - base["valid_rate"]) * base["score_if_valid"]
        delta["knowledge"] = delta["total"] - delta["format"]
    return {"metric": metric, "n": len(one.task.items), **sides, "delta": delta}


def chance_facts(one: Compared, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return chance level of a task that chooses, and whether the base lies below it with its whole interval."""
    if one.task.kind != "choose":
        return None
    chance = sum(1 / len(item.choices) for item in one.task.items) / len(one.task.items)
    metric = next((name for name in table if name in ("acc", "accuracy", "acc_norm")), None)
    high = None if metric is None else table[metric]["base"]["high"]
    return {"chance": chance, "metric": metric, "base_below_chance": high is not None and high < chance}


def retention_facts(compared: Sequence[Compared], confidence: float) -> dict[str, Any] | None:
    """Return what is kept of general ability, or None if the probe was not asked."""
    for one in compared:
        if one.task.name == RETENTION:
            base, tuned = ([bool(value) for value in one.measures["acc"][side].values] for side in ("base", "tuned"))
            return summarise(one.task.items, base, tuned, one.weights, confidence)
    return None
