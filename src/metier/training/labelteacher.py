"""A larger model with a head that teaches a smaller one: which of its outputs stand for the student's, and what it says of the training texts.

It reads every text once, with a tokenizer of its own, before training: what it says of a text does not change. A row of `teacher.npy` in the
workspace is what it says at one place of an answer, in the order of the examples; numbers that are none stand where a text was too long for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from metier.errors import ModelError
from metier.models import Base, Labeller, load_tokenizer
from metier.models.answers import pair_of, text_of
from metier.models.heads import load_with_head, longest
from metier.models.labels import LABELS_FILE, Labelling, LabelTask, read_labelling
from metier.models.words import TextReader
from metier.progress import Progress
from metier.records import Record
from metier.training.examples import Examples

__all__ = ["LabelTeacher", "teacher_of"]

_BATCH = 256
_TASK = "teacher"
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class LabelTeacher:
    """A teacher that is not loaded yet: its folder, what it answers, and which of its outputs stands for each of the student's."""

    base: Base
    labelling: Labelling
    columns: tuple[int, ...]

    def teach(
        self, taught: Examples, records: Iterable[Record], student: Labelling, *, file: Path, dtype: torch.dtype, device: str, progress: Progress
    ) -> Examples:
        """Return the examples with what the teacher says of each; what an earlier attempt has written to `file` is taken. `records` are theirs, in order.

        Raises ModelError if the teacher cannot be loaded, or lacks weights.
        """
        if not file.exists():
            self._write(taught, records, student, file=file, dtype=dtype, device=device, progress=progress)
        return replace(taught, said=np.load(file, mmap_mode="r"))

    def _write(
        self, taught: Examples, records: Iterable[Record], student: Labelling, *, file: Path, dtype: torch.dtype, device: str, progress: Progress
    ) -> None:
        model = load_with_head(self.base, self.labelling, dtype, seed=0, frozen=True, fresh=False)
        labeller = Labeller(model.to(device).eval(), self.labelling, TextReader(load_tokenizer(self.base)), device=device)
        aside = file.with_name(f".{file.name}")
        said = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float32, shape=(int(taught.learnt.sum()), len(student.classes)))
        place, unread = 0, 0
        progress.start(_TASK, len(taught), "texts")
        waiting = _of_examples(taught, records)
        while batch := list(islice(waiting, _BATCH)):
            readings = labeller.read([text_of(record) for record, _ in batch], [pair_of(record) for record, _ in batch])
            for (_, count), scores in zip(batch, labeller.scored(readings), strict=True):
                unread += scores is None
                said[place : place + count] = np.nan if scores is None else self._in_units_of(student, scores[:, list(self.columns)]).numpy()
                place += count
            progress.advance(_TASK, len(batch))
        progress.finish(_TASK, f"{self.base.name} has read {len(taught) - unread} of {len(taught)} texts")
        if unread:
            progress.say(
                f"note: {unread} training texts are longer than the {self.labelling.maximum_tokens} tokens of the teacher; their labels alone teach them"
            )
        said.flush()
        aside.rename(file)

    def _in_units_of(self, student: Labelling, scores: torch.Tensor) -> torch.Tensor:
        if student.task != "regression":
            return scores
        return (scores * self.labelling.spread + self.labelling.centre - student.centre) / student.spread


def _of_examples(taught: Examples, records: Iterable[Record]) -> Iterable[tuple[Record, int]]:
    """Yield the records that became examples, each with the number of its answers: examples stand in the records' order."""
    place = 0
    for record in records:
        if place < len(taught) and taught.origins[place].id == record.id:
            yield record, int(taught.learnt[place])
            place += 1


def teacher_of(base: Base, student: Labelling) -> LabelTeacher:
    """Return a folder as the teacher of a student: an expert that was trained in full here, or a model of transformers with the labels in its configuration.

    Nothing is loaded. Raises ModelError, naming the difference, if it answers something else than the student, or does not say what.
    """
    labelling, names = _answers(base)
    if labelling.task != student.task:
        raise ModelError(f"the teacher {base.name} answers {labelling.task}, and {student.task} is taught\n    -> give a teacher of the same task")
    if odd := sorted(set(names) ^ set(student.classes)):
        mine, theirs = [name for name in odd if name in student.classes], [name for name in odd if name not in student.classes]
        said = "; ".join(f"{what} {_listed(found)}" for what, found in (("it lacks", mine), ("only it has", theirs)) if found)
        raise ModelError(
            f"the teacher {base.name} has other labels: {said}\n    -> give one of the same labels, by the same names (id2label in its config.json)"
        )
    return LabelTeacher(base, labelling, tuple(names.index(name) for name in student.classes))


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _answers(base: Base) -> tuple[Labelling, tuple[str, ...]]:
    """Return what a folder's model answers, and the names of its outputs in their order."""
    if (base.folder / LABELS_FILE).is_file():
        found = read_labelling(base.folder)
        return found, found.classes
    try:
        config: Any = transformers.AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the configuration of the teacher {base.name} cannot be read: {error}") from None
    kind = str((config.architectures or [""])[0])
    names = tuple(str(config.id2label[place]) for place in range(config.num_labels))
    task: LabelTask | None = None
    if kind.endswith("ForTokenClassification"):
        task = "tagging"
    elif kind.endswith("ForSequenceClassification") and len(names) > 1:
        task = "multi-label" if config.problem_type == "multi_label_classification" else "classification"
    if task is None:
        raise ModelError(
            f"the teacher {base.name} does not say what its outputs mean ({kind or 'no architecture'}, no {LABELS_FILE})\n"
            "    -> give an expert that was trained here by method: full, or a model of transformers for several labels or for tags"
        )
    labels = tuple(dict.fromkeys(name.partition("-")[2] for name in names if name != "O")) if task == "tagging" else names
    return Labelling(task, labels, longest(base)), names
