"""Rules on the form of a text: limits on measures, kept as data with their sources, and what each takes from which dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from metier.config import Settings, load_yaml, parse
from metier.prepare.quality.exchange import Exchange
from metier.prepare.quality.measures import MEASURES, measure, phrases

__all__ = ["Finding", "FormRule", "form_rules", "judge_form", "judge_turns", "kept"]


class FormRule(Settings):
    """A limit on one measure."""

    name: str
    measure: str
    languages: tuple[str, ...] = ()
    """Languages of the text; empty: all."""
    below: float | None = None
    """The rule finds something where the measure is below this."""
    above: float | None = None
    """The rule finds something where the measure is above this."""
    needs: dict[str, float] = {}
    """Least values of other measures; a text with less is not asked."""
    dimension: Literal["fluency", "format", "information"]
    cost: float = Field(gt=0, le=1)
    """Share of the dimension that is lost."""
    says: str
    """Explanation, with {value} and {limit}."""
    source: str = ""
    """Where the limit comes from; empty: set here, on Chinese and English corpora."""

    @model_validator(mode="after")
    def _is_a_limit(self) -> FormRule:
        unknown = sorted({self.measure, *self.needs} - set(MEASURES))
        if unknown:
            raise ValueError(f"{self.name}: there is no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}")
        if (self.below is None) == (self.above is None):
            raise ValueError(f"{self.name}: give either below or above")
        return self


class _RuleFile(Settings):
    rules: tuple[FormRule, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found in one text."""

    rule: str
    dimension: str
    cost: float
    value: float
    why: str


_Compiled = tuple[tuple[str, float, FormRule], ...]


@lru_cache(maxsize=8)
def form_rules(path: Path | None = None) -> tuple[FormRule, ...]:
    """Return the rules of a file, by default Metier's own. Raises ConfigError with every fault."""
    return parse(load_yaml(path or Path(__file__).parent / "data" / "rules.yaml"), _RuleFile).rules


@lru_cache(maxsize=32)
def _compiled(language: str | None, path: Path | None) -> tuple[_Compiled, _Compiled]:
    """Return (measure, limit, rule) of the rules that find something below their limit, and of those above it."""
    own = [rule for rule in form_rules(path) if not rule.languages or language in rule.languages]
    below = tuple((rule.measure, rule.below, rule) for rule in own if rule.below is not None)
    return below, tuple((rule.measure, rule.above, rule) for rule in own if rule.above is not None)


def judge_form(text: str, language: str | None, *, rules: Path | None = None) -> tuple[Finding, ...]:
    """Return what the rules for a language find in a text; rules of one language never meet text of another or of an unknown one."""
    measures = measure(text, language)
    get = measures.get
    below, above = _compiled(language, rules)
    broken = [rule for name, limit, rule in above if get(name, limit) > limit]
    broken += [rule for name, limit, rule in below if get(name, limit) < limit]
    found = []
    for rule in broken:
        if all([get(other, 0.0) >= least for other, least in rule.needs.items()]):  # noqa: C419 - a list is quicker here
            value, limit = measures[rule.measure], rule.above if rule.below is None else rule.below
            found.append(Finding(rule.name, rule.dimension, rule.cost, value, rule.says.format(value=value, limit=limit)))
    return tuple(found)


def judge_turns(found: Exchange) -> tuple[Finding, ...]:
    """Return what is wrong with single turns: questions without a letter, and how many turns are thanks or placeholders."""
    data = phrases()
    empty = sum(1 for turn in found.turns if len(turn) <= 40 and "".join(filter(str.isalnum, turn.lower())) in data.placeholders)
    findings = []
    if found.question and not any(map(str.isalpha, found.question)):
        findings.append(Finding("question_without_words", "information", 0.5, 0.0, "the question holds no word"))
    if empty and found.turns:
        share = empty / len(found.turns)
        says = f"{empty} of {len(found.turns)} turns are thanks or placeholders"
        findings.append(Finding("empty_turns", "information", round(min(1.0, share), 3), share, says))
    return tuple(findings)


def kept(findings: Sequence[Finding], dimension: str) -> float:
    """Return what the findings leave of a dimension, 0 to 1: each takes its cost from what the ones before have left."""
    left = 1.0
    for finding in findings:
        if finding.dimension == dimension:
            left *= 1 - finding.cost
    return left
