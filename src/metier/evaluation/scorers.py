"""From answers to measures: the metrics that tasks may name, and the pack's own scorers and parsers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import regex

from metier.config import Settings, load_yaml, parse
from metier.errors import Fault, InputError, nearest
from metier.evaluation.items import Answer, Item, Task
from metier.evaluation.measures import Measure, brier, macro_f1, matthews, mean, ratio, roc_auc
from metier.evaluation.terms import Lexicon, count_terms, load_cues
from metier.evaluation.text import chrf, normalise, rouge_l
from metier.packs.spec import Pack, TaskSpec

__all__ = ["CHOOSE", "GENERATE", "LIKELIHOOD", "Graded", "Grader", "Tools", "higher_is_better", "metric_faults"]


class Refusals(Settings):
    """Patterns of answers that decline to answer; the file lies beside this module."""

    patterns: tuple[str, ...]
    """Regular expressions, looked for in the answer in lower case."""


@dataclass(frozen=True, slots=True)
class Graded:
    """One answer as the metrics see it. `valid`: its format can be read; `label`: what it answers, in normal form."""

    item: Item
    answer: Answer
    valid: bool
    abstained: bool
    label: str
    gold: str
    probabilities: tuple[float, ...] = ()
    right: int = -1


class Tools:
    """What grading needs of the pack: parsers, scorers and the lexicon (read when first used)."""

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        refusals = parse(load_yaml(Path(__file__).parent / "data" / "refusals.yaml"), Refusals)
        self._refusal = regex.compile("|".join(refusals.patterns), regex.IGNORECASE)

    @cached_property
    def lexicon(self) -> Lexicon:
        """The pack's lexicon, ready to search."""
        return Lexicon(self.pack.lexicon, load_cues())

    def abstains(self, text: str) -> bool:
        """Say whether a text declines to answer, or is empty."""
        return not text.strip() or self._refusal.search(text) is not None


def _softmax(logs: Sequence[float]) -> tuple[float, ...]:
    top = max(logs)
    powers = [math.exp(value - top) for value in logs]
    total = sum(powers)
    return tuple(value / total for value in powers)


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda index: values[index])


@dataclass(frozen=True, slots=True)
class Grader:
    """Grades the answers of one task."""

    task: Task
    tools: Tools
    _cache: dict[str, Any] = field(default_factory=dict)

    def grade(self, item: Item, answer: Answer) -> Graded:
        """Return one answer with what can be read off it. An answer that a parser returns None for is not valid."""
        if self.task.kind == "choose":
            logs = [value for value, _ in answer.likelihoods]
            chosen = _best(logs)
            return Graded(item, answer, True, False, item.choices[chosen], item.target, _softmax(logs), item.choices.index(item.target))
        if self.task.kind == "likelihood":
            return Graded(item, answer, True, False, "", item.target)
        abstained = self.tools.abstains(answer.text)
        if self.task.parser is None:
            return Graded(item, answer, bool(answer.text.strip()), abstained, normalise(answer.text), normalise(item.target))
        read = self.tools.pack.parsers[self.task.parser]
        value, gold = read(answer.text), read(item.target)
        wanted = normalise(item.target) if gold is None else _canonical(gold)
        return Graded(item, answer, value is not None, abstained, "" if value is None else _canonical(value), wanted)

    def measure(self, metric: str, graded: Sequence[Graded]) -> Measure:
        """Return one metric over the graded answers of one side."""
        if (scorer := self.tools.pack.scorers.get(metric)) is not None and metric not in _BUILT_IN:
            return mean([self._own(metric, scorer, one) for one in graded])
        return _BUILT_IN[metric][0](graded, self.tools)

    def _own(self, metric: str, scorer: Callable[..., float], one: Graded) -> float:
        if not one.valid:
            return 0.0
        fields = {**one.item.fields, "target": one.item.target, "language": one.item.language, "choices": list(one.item.choices)}
        score = float(scorer(one.answer.text if self.task.kind == "generate" else one.label, fields))
        if math.isinf(score):
            raise InputError(
                Fault(
                    f"the pack's scorer {metric!r} gave {score}",
                    key=self.task.name,
                    remedy="a scorer returns a finite number, or NaN for an item it says nothing of",
                )
            )
        return score


def _canonical(value: Any) -> str:
    """Return a parsed value as text that is equal for equal values."""
    if isinstance(value, str):
        return normalise(value)
    if isinstance(value, set | frozenset):
        return repr(sorted(_canonical(item) for item in value))
    if isinstance(value, Mapping):
        return repr(sorted((str(key), _canonical(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return repr([_canonical(item) for item in value])
    if isinstance(value, float) and value.is_integer():
        return repr(int(value))
    return repr(value)


_Scorer = Callable[[Sequence[Graded], Tools], Measure]


def _exact(graded: Sequence[Graded], tools: Tools) -> Measure:
    return mean([float(one.valid and one.label == one.gold) for one in graded], binary=True)


def _normalised_choice(graded: Sequence[Graded], tools: Tools) -> Measure:
    """Accuracy of the choice with the highest log probability a token."""
    chosen = [_best([value / max(count, 1) for value, count in one.answer.likelihoods]) for one in graded]
    return mean([float(best == one.right) for best, one in zip(chosen, graded, strict=True)], binary=True)


def _macro_f1(graded: Sequence[Graded], tools: Tools) -> Measure:
    return macro_f1([one.gold for one in graded], [one.label for one in graded])


def _mcc(graded: Sequence[Graded], tools: Tools) -> Measure:
    return matthews([one.gold for one in graded], [one.label for one in graded])


def _roc_auc(graded: Sequence[Graded], tools: Tools) -> Measure:
    return roc_auc([one.probabilities for one in graded], [one.right for one in graded], [one.item.choices for one in graded])


def _brier(graded: Sequence[Graded], tools: Tools) -> Measure:
    return brier([one.probabilities for one in graded], [one.right for one in graded])


def _chrf(graded: Sequence[Graded], tools: Tools) -> Measure:
    return mean([chrf(one.answer.text, one.item.target) if one.valid else 0.0 for one in graded])


def _rouge_l(graded: Sequence[Graded], tools: Tools) -> Measure:
    return mean([rouge_l(one.answer.text, one.item.target) if one.valid else 0.0 for one in graded])


def _terms(graded: Sequence[Graded], tools: Tools, *, precision: bool) -> Measure:
    tops, bottoms = [], []
    for one in graded:
        context = "\n".join(message.content for message in one.item.prompt)
        counts = count_terms(tools.lexicon, one.answer.text if one.valid else "", one.item.target, context)
        tops.append(counts.supported if precision else counts.found)
        bottoms.append(counts.mentions if precision else counts.gold)
    return ratio(tops, bottoms)


def _term_precision(graded: Sequence[Graded], tools: Tools) -> Measure:
    return _terms(graded, tools, precision=True)


def _term_recall(graded: Sequence[Graded], tools: Tools) -> Measure:
    return _terms(graded, tools, precision=False)


def _bits(graded: Sequence[Graded], tools: Tools) -> Measure:
    """Bits a character of the reference answer (its end included): cross-entropy that does not depend on the tokenizer."""
    return ratio([-one.answer.likelihoods[0][0] / math.log(2) for one in graded], [len(one.item.target) for one in graded])


# Name -> function and whether more is better. Names are lm-eval's where it has one; the others are spellings in use.
CHOOSE: Mapping[str, tuple[_Scorer, bool]] = {
    "acc": (_exact, True),
    "accuracy": (_exact, True),
    "acc_norm": (_normalised_choice, True),
    "f1": (_macro_f1, True),
    "macro_f1": (_macro_f1, True),
    "mcc": (_mcc, True),
    "roc_auc": (_roc_auc, True),
    "brier": (_brier, False),
    "brier_score": (_brier, False),
}
GENERATE: Mapping[str, tuple[_Scorer, bool]] = {
    "acc": (_exact, True),
    "accuracy": (_exact, True),
    "exact": (_exact, True),
    "exact_match": (_exact, True),
    "f1": (_macro_f1, True),
    "macro_f1": (_macro_f1, True),
    "mcc": (_mcc, True),
    "chrf": (_chrf, True),
    "rouge_l": (_rouge_l, True),
    "rougeL": (_rouge_l, True),
    "term_precision": (_term_precision, True),
    "term_recall": (_term_recall, True),
}
LIKELIHOOD: Mapping[str, tuple[_Scorer, bool]] = {"bits_per_character": (_bits, False)}
_BUILT_IN: Mapping[str, tuple[_Scorer, bool]] = {**CHOOSE, **GENERATE, **LIKELIHOOD}


def higher_is_better(metric: str, stated: bool) -> bool:
    """Return the direction of a metric: Metier's own metrics know theirs, a pack's scorer has the stated one."""
    return _BUILT_IN[metric][1] if metric in _BUILT_IN else stated


def metric_faults(spec: TaskSpec, pack: Pack, path: Path) -> list[Fault]:
    """Return a fault for each metric of a task that is unknown, does not fit the output type or has the wrong direction."""
    table = CHOOSE if spec.output_type == "multiple_choice" else GENERATE
    known = [*table, *pack.scorers]
    faults = []
    for metric in spec.metric_list:
        name, key = metric.metric, f"{spec.task}.metric_list"
        if name not in known:
            what = f"the metric {name!r} does not fit {spec.output_type}" if name in _BUILT_IN else f"no metric {name!r}"
            faults.append(Fault(what, path, key=key, remedy=nearest(name, known)))
        elif name in table and "higher_is_better" in metric.model_fields_set and metric.higher_is_better != table[name][1]:
            faults.append(Fault(f"{name}: higher_is_better is {str(table[name][1]).lower()}", path, key=key, remedy="leave the key out"))
        elif name in ("term_precision", "term_recall") and not pack.lexicon:
            faults.append(
                Fault(f"{name} needs a lexicon, and the pack has none", path, key=key, remedy="add lexicon.yaml to the pack, or leave the metric out")
            )
    return faults
