"""A trained model with a head, on this machine: what it answers to texts, batched without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from metier.models.base import Base
from metier.models.heads import Layout, label_scores, layout_of
from metier.models.labelfiles import load_trained
from metier.models.labels import Labelling, Prediction
from metier.models.precision import fastest_dtype
from metier.models.tags import best_tags, spans_of
from metier.models.tokenizer import load_tokenizer
from metier.models.words import Reading, TextReader
from metier.progress import SILENT, Progress
from metier.records import Span

__all__ = ["Labeller", "answer_places", "packed"]

_LIKELY = 0.5


class Labeller:
    """A loaded model with its labelling."""

    def __init__(self, model: torch.nn.Module, labelling: Labelling, reader: TextReader, *, device: str = "cpu", batch_tokens: int = 4096) -> None:
        self.model: Any = model
        self.labelling = labelling
        self.reader = reader
        self.device = device
        self.batch_tokens = batch_tokens
        self.layout: Layout = layout_of(model, labelling)

    @classmethod
    def open(cls, base: Base, folder: Path, *, device: str = "cpu", dtype: torch.dtype | None = None) -> Labeller:
        """Load what training left in a folder, with its base model. Raises ModelError if they do not fit each other."""
        model, labelling, virtual = load_trained(base, folder, dtype or fastest_dtype(device))
        return cls(model.to(device).eval(), labelling, TextReader(load_tokenizer(base), virtual=virtual), device=device)

    def predict(self, texts: Sequence[str], pairs: Sequence[str | None] | None = None, *, progress: Progress = SILENT, task: str = "label") -> list[Prediction]:
        """Return the answer to each text (with its second text, if `pairs` gives one), in order."""
        return self.answer(texts, self.read(texts, pairs), progress=progress, task=task)

    def read(self, texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> list[Reading]:
        """Return the tokens of each text."""
        return [self.reader.by_word(text) for text in texts] if self.labelling.by_word else self.reader.whole(texts, pairs)

    def answer(self, texts: Sequence[str], readings: Sequence[Reading], *, progress: Progress = SILENT, task: str = "label") -> list[Prediction]:
        """Return the answer to each text that was read, in order."""
        answers: list[Prediction] = [Prediction(read=False)] * len(texts)
        for batch in self._batches(readings):
            scores = self.scores([readings[index] for index in batch])
            for index, answer in zip(batch, self._answers([texts[index] for index in batch], [readings[index] for index in batch], scores), strict=True):
                answers[index] = answer
            progress.advance(task, len(batch))
        unread = sum(not answer.read for answer in answers)
        if unread:
            progress.advance(task, unread)
        return answers

    def scored(self, readings: Sequence[Reading]) -> list[torch.Tensor | None]:
        """Return the head's outputs of each text [answers, classes], in order: one a word, or one for the whole text; None for one that is too long."""
        found: list[torch.Tensor | None] = [None] * len(readings)
        for batch in self._batches(readings):
            for index, scores in zip(batch, self.scores([readings[index] for index in batch]), strict=True):
                found[index] = scores
        return found

    def _batches(self, readings: Sequence[Reading]) -> Iterator[list[int]]:
        """Yield indices of texts, similar lengths together; what the model cannot take is left out."""
        batch: list[int] = []
        total = 0
        for index in sorted(range(len(readings)), key=lambda item: len(readings[item])):
            size = len(readings[index])
            if size > self.labelling.maximum_tokens:
                break
            if batch and total + size > self.batch_tokens:
                yield batch
                batch, total = [], 0
            batch.append(index)
            total += size
        if batch:
            yield batch

    @torch.inference_mode()
    def scores(self, readings: Sequence[Reading]) -> list[torch.Tensor]:
        """Return the head's outputs of each text, [answers, classes]: one a word, or one for the whole text."""
        row = packed(readings, self.layout)
        counts = [len(reading.firsts) if self.labelling.by_word else 1 for reading in readings]
        if not sum(counts):
            return [torch.zeros(0, len(self.labelling.classes))] * len(readings)
        tokens, positions, sources = (row[name].to(self.device) for name in ("tokens", "positions", "sources"))
        kinds = row["kinds"].to(self.device) if "kinds" in row else None
        lengths = [len(item) for item in readings]
        scores = label_scores(self.model, self.layout, tokens, positions, lengths=lengths, sources=sources, kinds=kinds)
        return list(torch.split(scores.cpu(), counts))

    def _answers(self, texts: Sequence[str], readings: Sequence[Reading], scores: Sequence[torch.Tensor]) -> Iterator[Prediction]:
        labelling = self.labelling
        if labelling.task == "tagging":
            chances = [torch.log_softmax(item, dim=-1) for item in scores]
            rows = best_tags([item.numpy() for item in chances])
            for text, reading, tags, chance in zip(texts, readings, rows, chances, strict=True):
                spans = spans_of(text, reading.words, tags, labelling.labels)
                sure = chance[torch.arange(len(tags)), torch.tensor(tags, dtype=torch.int64)].exp().tolist()
                yield Prediction(spans=spans, certainty=tuple(_least(span, reading, sure) for span in spans))
            return
        for (item,) in scores:
            if labelling.task == "regression":
                yield Prediction(value=float(item) * labelling.spread + labelling.centre)
            elif labelling.task == "pair":
                yield Prediction(value=float(torch.sigmoid(item)))
            elif labelling.task == "multi-label":
                likely = torch.sigmoid(item).tolist()
                yield Prediction(tuple(name for name, chance in zip(labelling.labels, likely, strict=True) if chance >= _LIKELY), probabilities=tuple(likely))
            else:
                yield Prediction((labelling.labels[int(item.argmax())],), probabilities=tuple(torch.softmax(item, dim=-1).tolist()))


def _least(span: Span, reading: Reading, sure: Sequence[float]) -> float:
    """Return the least probability of a tag among a span's words."""
    return min(chance for (start, end), chance in zip(reading.words, sure, strict=True) if span.start <= start and end <= span.end)


def packed(readings: Sequence[Reading], layout: Layout) -> dict[str, torch.Tensor]:
    """Return one packed row of texts: tokens, positions, sources (where answers are given) and kinds, 1-D int64 tensors (kinds: only where there are pairs)."""
    tokens: list[int] = []
    positions: list[int] = []
    sources: list[int] = []
    kinds: list[int] = []
    for reading in readings:
        start = len(tokens)
        tokens.extend(reading.tokens)
        positions.extend(range(len(reading)))
        kinds.extend(reading.kinds or [0] * len(reading))
        sources.extend(start + place for place in answer_places(reading, layout))
    rows = {"tokens": tokens, "positions": positions, "sources": sources} | ({"kinds": kinds} if any(kinds) else {})
    return {name: torch.tensor(values, dtype=torch.int64) for name, values in rows.items()}


def answer_places(reading: Reading, layout: Layout) -> Sequence[int]:
    """Return the tokens of a text at which answers are given: one a word, or one for the text; a causal model has to have read it whole."""
    if not layout.pooled:
        return reading.lasts if layout.causal else reading.firsts
    return [len(reading) - 1] if layout.causal else [reading.begin]
