"""Would the pack's guard let this pass? Its rules for answers and questions, applied to what is to be learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from metier.packs.matching import applies, guard_finds
from metier.packs.spec import GuardRule

__all__ = ["Safety", "safety"]


@dataclass(frozen=True, slots=True)
class Safety:
    """1, or 0 where the guard would refuse or redact, and what its rules found."""

    value: float
    why: tuple[str, ...]


def safety(question: str, answer: str, language: str | None, guard: Sequence[GuardRule]) -> Safety:
    """Return what the guard's rules find in an answer and its question.

    An answer that a rule would refuse or redact scores 0, and so does any answer but the refusal's own words to a question that a rule
    refuses. A rule that would add its sentence costs nothing: the guard adds it when the expert answers. Raises PackError for a pattern
    that runs out of time.
    """
    why: list[str] = []
    value = 1.0
    missing: list[str] = []
    for rule in guard:
        text = answer if rule.applies == "output" else question
        if not text or not applies(rule.languages, language) or not guard_finds(rule, text):
            continue
        said = any(part and part in answer for part in rule.text.values())
        if rule.action == "disclaim":
            missing += [] if said else [rule.name]
        elif rule.action == "redact" and rule.applies == "input":
            # The question is redacted at serving time; the answer to it may be learnt.
            why.append(f"the question is one that rule {rule.name} redacts")
        elif not (rule.applies == "input" and said):
            value = 0.0
            why.append(f"rule {rule.name} would {rule.action} it")
    why += [f"rule {name} would add its sentence" for name in missing]
    return Safety(value, tuple(why))
