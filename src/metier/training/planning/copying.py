"""Would copying do? What labels can be told without training: the most frequent answer, and that of the nearest training text."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metier.artifacts import Artifact
from metier.models import Base, SentenceEncoder
from metier.models.answers import answer_of, pair_of, text_of
from metier.models.labels import LabelTask
from metier.progress import SILENT, Progress
from metier.records import Record
from metier.shards import dataset_records
from metier.training.planning.intervals import mean_interval, share_interval
from metier.training.planning.prompting import Measured, Searcher
from metier.training.reading import first_of_each

__all__ = ["conclude_copying", "measure_copying"]

_REACHED = 4000
"""Training texts of a language at most that are copied from, the first by their ids: each is read by the encoder."""


def measure_copying(
    dataset: Artifact, task: LabelTask, searcher: Searcher, *, limit: int, encoder: Base | None, seed: int = 0, progress: Progress = SILENT
) -> list[Measured]:
    """Return for each language the share of validation texts whose whole answer is right when it is copied; nothing for numbers, pairs and spans.

    `copied`: from the training text that the search finds. `encoded`: from the one whose vector of the untrained base model is nearest (cosine of mean
    states), where `encoder` is given. `frequent`: the commonest answer of the training split. All see the same `limit` texts a language.
    """
    if task not in ("classification", "multi-label"):
        return []
    asked = first_of_each((record for record in dataset_records(dataset, "validation") if answer_of(record, task) is not None), _language, limit)
    known = [record for record in dataset_records(dataset, "train") if answer_of(record, task) is not None] if asked else []
    found = []
    for language, items in sorted(asked.items()):
        alike = [record for record in known if _language(record) == language] or known
        alike = heapq.nsmallest(_REACHED, alike, key=lambda record: record.id)
        if alike:
            found.append(_measured(language, task, alike, items, searcher, encoder=encoder, seed=seed, progress=progress))
    return found


def _measured(
    language: str, task: LabelTask, known: Sequence[Record], items: Sequence[Record], searcher: Searcher, *, encoder: Base | None, seed: int, progress: Progress
) -> Measured:
    answers, wanted = [answer_of(record, task) for record in known], [answer_of(item, task) for item in items]
    texts, questions = [_text(record) for record in known], [_text(item) for item in items]
    search = searcher(texts)
    nearest = [list(search(question, 1)) for question in questions]
    right = {"copied": [bool(found) and answers[found[0]] == true for found, true in zip(nearest, wanted, strict=True)]}
    if encoder is not None:
        name = f"nearest {language}".strip()
        progress.start(name, 1, "")
        sentences = SentenceEncoder(encoder.folder)
        theirs, ours = (_unit(sentences.encode(given)) for given in (texts, questions))
        places = (ours @ theirs.T).argmax(axis=1)
        right["encoded"] = [answers[place] == true for place, true in zip(places, wanted, strict=True)]
        progress.finish(name)
    common = Counter(answers).most_common(1)[0][0]
    frequent = [true == common for true in wanted]
    measured = Measured(f"{task} {language}".strip(), "choice", len(items))
    for way, hits in {**right, "frequent": frequent}.items():
        measured.scores[way] = share_interval(sum(hits), len(hits))
        if way != "frequent":
            apart = [float(hit) - float(often) for hit, often in zip(hits, frequent, strict=True)]
            measured.differences[way] = mean_interval(apart, [1.0] * len(apart), seed=seed)
    measured.chance = sum(frequent) / len(frequent)
    return measured


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return found


def _language(record: Record) -> str:
    return record.language or ""


def _text(record: Record) -> str:
    return " ".join(part for part in (text_of(record), pair_of(record)) if part)


def conclude_copying(results: Sequence[dict[str, object]], target: float) -> list[str]:
    """Return in plain sentences what the measurements say about training at all; `results` are facts with `verdict`."""
    said = {
        "would do": f"Copying reaches {target:.2f} right: there, training is not needed for that",
        "would not do": f"Neither the commonest answer nor the nearest training text reaches {target:.2f} right: train",
        "cannot be told": f"The sample is too small to tell whether copying reaches {target:.2f} right: ask more items (--items)",
    }
    named: dict[object, list[str]] = {}
    for row in results:
        named.setdefault(row["verdict"], []).append(str(row["family"]))
    return [f"{sentence} ({', '.join(named[verdict])})." for verdict, sentence in said.items() if verdict in named]
