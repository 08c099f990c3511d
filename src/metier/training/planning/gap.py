"""How far a project's records are from what the base model knows, group by group, and the stages that this suggests.

The base model reads what would be taught, and everyday prose in the same language beside it; the gap is how many more bits a character of the
group takes than one of the prose. Stages go from what is near to what is far, and from texts to answers: continued pretraining on a field's texts before its
tasks is what helped in Gururangan et al. 2020 (arXiv 2004.10964), near before far is the order of a curriculum (Bengio et al. 2009).
The bounds between near, middling and far are rules of thumb.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal, TypeAlias

import yaml

from metier.artifacts import Artifact
from metier.models import LocalModel, text_likelihoods
from metier.progress import SILENT, Progress
from metier.records import Record
from metier.shards import dataset_records
from metier.training.reading import first_of_each

__all__ = ["Gap", "Level", "measure_gaps", "propose_stages"]

Level: TypeAlias = Literal["near", "middling", "far"]
_Group: TypeAlias = tuple[str, str, Literal["texts", "answers"]]
"""Domain, task and kind."""

_NEAR, _FAR = 0.1, 0.5
_EPOCHS: Mapping[str, Mapping[Level, int]] = {"texts": {"near": 1, "middling": 2, "far": 2}, "answers": {"near": 1, "middling": 2, "far": 3}}
_REPLAYED = 0.1
"""Share of general records that is proposed where something is far: what moves the model most makes it forget most."""
_WRITTEN = 100
_CHARACTERS = 2000
"""Characters of a text that are read."""
_TASK = "gap"


@dataclass(frozen=True, slots=True)
class Gap:
    """What a group of records costs the base model: bits a character of the group and of everyday prose in its languages, weighted alike."""

    task: str
    domain: str
    kind: Literal["texts", "answers"]
    records: int
    bits: float
    prose: float

    @property
    def share(self) -> float:
        """How many more bits a character the group takes, as a share of the prose's."""
        return self.bits / self.prose - 1

    @property
    def level(self) -> Level:
        """What that is called."""
        return "near" if self.share < _NEAR else "far" if self.share > _FAR else "middling"

    def as_facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        facts = {"task": self.task, "domain": self.domain, "kind": self.kind, "records": self.records}
        return facts | {"bits_a_character": self.bits, "prose_bits_a_character": self.prose, "share": self.share, "level": self.level}


@cache
def _prose() -> dict[str, list[str]]:
    found: dict[str, list[str]] = yaml.safe_load(resources.files("metier.training").joinpath("data/prose.yaml").read_text(encoding="utf-8"))
    return found


def measure_gaps(dataset: Artifact, opened: Callable[[], LocalModel], *, limit: int, progress: Progress = SILENT) -> list[Gap]:
    """Return the gap of each task (and domain) of the validation split, by at most `limit` of its records.

    Records in languages of which there is no prose here are left out. `opened` returns the base model; it is called only if there is something to read.
    """
    groups = list(_groups(dataset, limit))
    if not groups:
        return []
    progress.start(_TASK, len(groups) + 1, "groups")
    model = opened()
    prose = {language: _of_texts(model, texts) for language, texts in _prose().items()}
    progress.advance(_TASK)
    found = []
    for (domain, task, kind), by_language in groups:
        measured = {language: (_of_texts if kind == "texts" else _of_answers)(model, records) for language, records in by_language.items()}
        letters = sum(count for _, count in measured.values())
        bits = math.fsum(cost for cost, _ in measured.values()) / letters
        beside = math.fsum(count * prose[language][0] / prose[language][1] for language, (_, count) in measured.items()) / letters
        found.append(Gap(task, domain, kind, sum(map(len, by_language.values())), bits, beside))
        progress.advance(_TASK)
    progress.finish(_TASK)
    return found


def _groups(dataset: Artifact, limit: int) -> Iterator[tuple[_Group, dict[str, list[Any]]]]:
    """Yield (domain, task, kind) and, by language, texts or records with an answer: the first `limit` of each group in the order of their ids."""
    for key, records in sorted(first_of_each(dataset_records(dataset, "validation"), _group, limit).items()):
        by_language: dict[str, list[Any]] = {}
        for record in records:
            by_language.setdefault(record.language or "", []).append(record.text[:_CHARACTERS] if key[2] == "texts" else record)
        yield key, by_language


def _group(record: Record) -> _Group | None:
    """Return what a record is measured with; None for one without anything to read, or in a language of which there is no prose."""
    if record.language not in _prose() or not (record.text.strip() or any(message.learn for message in record.messages)):
        return None
    return record.domain or "", record.task or "", "answers" if record.messages else "texts"


def _of_texts(model: LocalModel, texts: Sequence[str]) -> tuple[float, int]:
    """Return the bits that texts take, and their characters."""
    found = text_likelihoods(model, texts)
    return math.fsum(-item.log_probability / math.log(2) for item in found), sum(map(len, texts))


def _of_answers(model: LocalModel, records: Sequence[Record]) -> tuple[float, int]:
    """Return the bits that the last learnt answer of each record takes after what stands before it, and their characters."""
    last = [max(place for place, message in enumerate(record.messages) if message.learn) for record in records]
    before = [record.messages[:place] for record, place in zip(records, last, strict=True)]
    answers = [(record.messages[place].content,) for record, place in zip(records, last, strict=True)]
    found = model.choose(before, answers)
    return math.fsum(-item.log_probability / math.log(2) for (item,) in found), sum(len(answer) for (answer,) in answers)


def propose_stages(gaps: Sequence[Gap]) -> dict[str, Any] | None:
    """Return keys for `training:` that teach near before far and texts before answers, or None where one stage does as well."""
    several = len({gap.domain for gap in gaps}) > 1
    stages = []
    for kind, epochs in _EPOCHS.items():
        for level, passes in epochs.items():
            inside = [gap for gap in gaps if gap.kind == kind and gap.level == level]
            if inside:
                records = {"task": sorted({gap.task for gap in inside})} | ({"domain": sorted({gap.domain for gap in inside})} if several else {})
                stages.append({"name": f"{kind}, {level}", "records": records, "epochs": passes})
    if len(stages) < 2:
        return None
    far = any(gap.level == "far" for gap in gaps)
    # Records to be replayed are there already, or the base model writes some.
    written = {} if any(gap.task == "replay" for gap in gaps) else {"written": _WRITTEN}
    return {"stages": stages} | ({"replay": {"share": _REPLAYED} | written} if far else {})
