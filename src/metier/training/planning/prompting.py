"""Would prompting do? The base model answers a small sample of the validation split: alone, with solved examples, with the nearest ones found.

Records whose answers form a small closed set are asked as a choice and scored by the share of right ones; of free answers the likelihood
of the reference is measured, in bits a character. All ways of asking see the same items, so differences are paired.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from metier.digest import digest_of
from metier.models import LocalModel
from metier.progress import SILENT, Progress
from metier.records import Message, Record
from metier.training.planning.intervals import Interval, mean_interval, share_interval
from metier.training.reading import first_of_each

__all__ = ["ARMS", "Arm", "Family", "Measured", "Search", "Searcher", "Verdict", "conclude", "families", "measure_prompting", "verdict"]

Search: TypeAlias = Callable[[str, int], Sequence[int]]
"""Returns the numbers of the passages nearest to a text, best first."""
Searcher: TypeAlias = Callable[[Sequence[str]], Search]
"""Makes a search over passages."""
Arm: TypeAlias = Literal["alone", "examples", "nearest"]
Verdict: TypeAlias = Literal["would do", "would not do", "cannot be told", "not comparable"]

ARMS: tuple[Arm, ...] = ("alone", "examples", "nearest")
_CLOSED = 64
"""Distinct answers up to which they count as a closed set."""
_REPEATS = 4
"""Training records a distinct answer that a closed set has at least, on average."""


@dataclass(frozen=True, slots=True)
class Family:
    """Records that ask for the same kind of answer: one task in one language. `choices` is empty where answers are free."""

    name: str
    train: tuple[Record, ...]
    items: tuple[Record, ...]
    choices: tuple[str, ...]


@dataclass(slots=True)
class Measured:
    """What one family gave. `right` and `bits` hold one figure an item for each way of asking; `shown` how many examples fitted, on average."""

    family: str
    kind: Literal["choice", "free"]
    items: int
    scores: dict[str, Interval] = field(default_factory=dict)
    differences: dict[str, Interval] = field(default_factory=dict)
    shown: dict[str, float] = field(default_factory=dict)
    chance: float | None = None

    def as_facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        names = {"family": self.family, "kind": self.kind, "items": self.items, "shown": self.shown, "most_frequent_answer": self.chance}
        return {
            **names,
            "scores": {name: score.as_facts() for name, score in self.scores.items()},
            "differences": {name: score.as_facts() for name, score in self.differences.items()},
        }


def _answer_at(record: Record) -> int | None:
    places = [index for index, message in enumerate(record.messages) if message.learn]
    return places[-1] if places and places[-1] > 0 else None


def _answer(record: Record) -> str:
    return record.messages[_answer_at(record) or 0].content


def _question(record: Record) -> str:
    return record.messages[(_answer_at(record) or 1) - 1].content


def families(train: Iterable[Record], validation: Iterable[Record], *, limit: int) -> list[Family]:
    """Return the families of both splits with at most `limit` validation items each, taken by the order of their ids (digests)."""
    asked = first_of_each(validation, _family, limit)
    known: dict[str, list[Record]] = {}
    for record in train:
        if (name := _family(record)) in asked:
            known.setdefault(name or "", []).append(record)
    return [Family(name, tuple(records), tuple(asked[name]), _choices(records, asked[name])) for name, records in sorted(known.items())]


def _family(record: Record) -> str | None:
    """Return the name of a record's family, None for one without an answer."""
    if _answer_at(record) is None or not _answer(record).strip():
        return None
    return " ".join(part for part in (record.task, record.language) if part) or "conversations"


def _choices(known: Sequence[Record], items: Sequence[Record]) -> tuple[str, ...]:
    answers = {_answer(record) for record in known}
    if not 2 <= len(answers) <= _CLOSED or len(known) < _REPEATS * len(answers):
        return ()
    return tuple(sorted(answers | {_answer(record) for record in items}))


def measure_prompting(
    model: LocalModel, family: Family, searcher: Searcher, *, shots: int, seed: int = 0, arms: Sequence[Arm] = ARMS, progress: Progress = SILENT
) -> Measured:
    """Ask one family in each of the ways, and by the two ways that need no model, and return what came of it.

    `alone`: the question only. `examples`: `shots` solved examples before it. `nearest`: those whose questions the search finds.
    """
    questions = [_question(record) for record in family.train]
    search = searcher(questions)
    measured = Measured(family.name, "choice" if family.choices else "free", len(family.items))
    fixed = _drawn(family, shots, seed)
    nearest = [search(_question(item), shots) for item in family.items]
    results: dict[str, list[float]] = {}
    for arm in arms:
        # Of those that were found the nearest stands last, right before the question.
        chosen = [[family.train[place] for place in reversed(found)] if arm == "nearest" else fixed if arm == "examples" else [] for found in nearest]
        prompts = [_prompt(model, item, given) for item, given in zip(family.items, chosen, strict=True)]
        measured.shown[arm] = sum(count for _, count in prompts) / len(prompts)
        results[arm] = _ask(model, family, [prompt for prompt, _ in prompts], progress=progress, task=f"{family.name}, {arm}")
    _score(measured, family, results, nearest, seed)
    return measured


def _drawn(family: Family, shots: int, seed: int) -> list[Record]:
    """Draw solved examples by the hash of seed and id; of a closed set with as many distinct answers as there is room for."""
    order = sorted(family.train, key=lambda record: digest_of([seed, record.id]))
    seen: Counter[str] = Counter()
    rounds = []
    for record in order:
        seen[_answer(record)] += 1
        rounds.append((seen[_answer(record)] if family.choices else 1, record))
    return [record for _, record in sorted(rounds, key=lambda pair: pair[0])[:shots]]


def _prompt(model: LocalModel, item: Record, given: Sequence[Record]) -> tuple[tuple[Message, ...], int]:
    """Return the prompt with as many solved examples before it as fit into three quarters of the model's context, the last ones first kept."""
    own = item.messages[: _answer_at(item)]
    head = 1 if own[0].role == "system" else 0
    room = 3 * int(model.model.config.get_text_config().max_position_embeddings) // 4
    for count in range(len(given), 0, -1):
        solved = [message for record in given[len(given) - count :] for message in (Message("user", _question(record)), Message("assistant", _answer(record)))]
        prompt = (*own[:head], *solved, *own[head:])
        if len(model.chat.prompt(prompt)) <= room:
            return prompt, count
    return own, 0


def _ask(model: LocalModel, family: Family, prompts: Sequence[Sequence[Message]], *, progress: Progress, task: str) -> list[float]:
    """Return for each item 1 or 0 (right or wrong) of a choice, or the bits of a free reference answer."""
    progress.start(task, len(prompts), "items")
    options = [family.choices or (_answer(item),) for item in family.items]
    found = model.choose(prompts, options, progress=progress, task=task)
    progress.finish(task)
    if not family.choices:
        return [-row[0].log_probability / math.log(2) for row in found]
    best = [max(range(len(row)), key=lambda place, row=row: row[place].log_probability) for row in found]  # type: ignore[misc]
    return [float(family.choices[place] == _answer(item)) for place, item in zip(best, family.items, strict=True)]


def _score(measured: Measured, family: Family, results: Mapping[str, Sequence[float]], nearest: Sequence[Sequence[int]], seed: int) -> None:
    count = len(family.items)
    if not family.choices:
        lengths = [len(_answer(item)) for item in family.items]
        for arm, bits in results.items():
            measured.scores[arm] = mean_interval(bits, lengths, seed=seed)
            if arm != "alone" and "alone" in results:
                measured.differences[arm] = mean_interval([a - b for a, b in zip(bits, results["alone"], strict=True)], lengths, seed=seed)
        return
    for arm, right in results.items():
        measured.scores[arm] = share_interval(round(sum(right)), count)
        if arm != "alone" and "alone" in results:
            measured.differences[arm] = mean_interval([a - b for a, b in zip(right, results["alone"], strict=True)], [1.0] * count, seed=seed)
    copied = sum(bool(found) and _answer(family.train[found[0]]) == _answer(item) for found, item in zip(nearest, family.items, strict=True))
    measured.scores["copied"] = share_interval(copied, count)
    common = Counter(_answer(record) for record in family.train).most_common(1)[0][0]
    measured.chance = sum(_answer(item) == common for item in family.items) / count


def verdict(measured: Measured, target: float) -> tuple[Verdict, str]:
    """Return whether one of the ways reaches `target`, and which one is best, bounds corrected for choosing the best of them (Bonferroni)."""
    if measured.kind == "free":
        best = min(measured.scores, key=lambda name: measured.scores[name].value)
        return "not comparable", best
    best = max(measured.scores, key=lambda name: measured.scores[name].value)
    confidence = 1 - 0.05 / len(measured.scores)
    wide = {name: share_interval(round(score.value * measured.items), measured.items, confidence) for name, score in measured.scores.items()}
    if any(score.low >= target for score in wide.values()):
        return "would do", best
    if all(score.high < target for score in wide.values()):
        return "would not do", best
    return "cannot be told", best


def conclude(results: Sequence[Mapping[str, Any]], target: float) -> list[str]:
    """Return in plain sentences what the measurements say about training at all; `results` are facts with `verdict` and `best`."""
    said = []
    named: dict[str, list[str]] = {}
    for row in results:
        named.setdefault(row["verdict"], []).append(row["family"])
    if done := named.get("would do"):
        said.append(f"Without training, the base model or the search reaches {target:.2f} on {', '.join(done)}: there, training is not needed for that.")
    if undone := named.get("would not do"):
        said.append(f"Prompting stays below {target:.2f} on {', '.join(undone)}, whichever way it is asked: train.")
    if open_ := named.get("cannot be told"):
        said.append(f"On {', '.join(open_)} the sample is too small to tell whether prompting reaches {target:.2f}: ask more items (--items).")
    if named.get("not comparable"):
        helped = [row["family"] for row in results if row["kind"] == "free" and any(score["high"] < 0 for score in row["differences"].values())]
        free = ", ".join(named["not comparable"])
        effect = f"solved examples make the reference answers clearly likelier on {', '.join(helped)}" if helped else "solved examples do not clearly help"
        said.append(f"Free answers ({free}) have no share of right ones: {effect}. Whether they are good enough, people have to read.")
    return said
