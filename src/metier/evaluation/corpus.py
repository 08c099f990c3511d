"""The dataset as evaluation reads it: held-out records, and what the training split gives (labels, solved examples)."""

from __future__ import annotations

from collections.abc import Iterator

from metier.artifacts import Artifact
from metier.digest import digest_of
from metier.evaluation.text import language_of
from metier.records import Message, Record
from metier.shards import dataset_records

__all__ = ["Corpus", "Shot", "learnt_at", "record_language"]

Shot = tuple[tuple[Message, ...], str]
"""A solved example: the prompt's messages and the answer."""

_SHOTS_KEPT = 32


def learnt_at(record: Record) -> int | None:
    """Return the place of a record's last learnt message that has a prompt before it, or None."""
    places = [index for index, message in enumerate(record.messages) if message.learn]
    return places[-1] if places and places[-1] > 0 else None


def record_language(record: Record) -> str:
    """Return a record's language; a record without one counts as Chinese if its text has a Han character, else as English."""
    return record.language or language_of(record.text or "".join(message.content for message in record.messages))


class Corpus:
    """Reads each split of a dataset at most once."""

    def __init__(self, dataset: Artifact, seed: int) -> None:
        self._dataset, self._seed = dataset, seed
        self._splits: dict[str, tuple[Record, ...]] = {}
        self._labels: dict[tuple[str, str], set[str]] | None = None
        self._shots: dict[tuple[str, str], list[tuple[str, Shot]]] = {}

    def records(self, split: str) -> tuple[Record, ...]:
        """Return the records of one split."""
        if split not in self._splits:
            self._splits[split] = tuple(dataset_records(self._dataset, split))
        return self._splits[split]

    def labels(self, task: str, language: str) -> tuple[str, ...]:
        """Return the sorted labels among a task's training records of one language."""
        return tuple(sorted(self._training().get((task, language), ())))

    def shots(self, task: str, language: str, count: int) -> tuple[Shot, ...]:
        """Return solved examples from the training split, chosen by hash; fewer if there are fewer (32 at most are kept)."""
        self._training()
        return tuple(shot for _, shot in sorted(self._shots.get((task, language), []), key=lambda pair: pair[0])[:count])

    def _training(self) -> dict[tuple[str, str], set[str]]:
        if self._labels is None:
            self._labels = {}
            for key, record in self._train_records():
                if record.label is not None:
                    self._labels.setdefault(key, set()).add(record.label)
                self._keep_shot(key, record)
        return self._labels

    def _train_records(self) -> Iterator[tuple[tuple[str, str], Record]]:
        for record in dataset_records(self._dataset, "train"):
            yield (record.task or "", record_language(record)), record

    def _keep_shot(self, key: tuple[str, str], record: Record) -> None:
        if (place := learnt_at(record)) is None:
            return
        kept = self._shots.setdefault(key, [])
        kept.append((digest_of([self._seed, record.id]), (record.messages[:place], record.messages[place].content)))
        if len(kept) > 4 * _SHOTS_KEPT:
            kept.sort(key=lambda pair: pair[0])
            del kept[_SHOTS_KEPT:]
