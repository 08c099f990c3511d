"""Does an answer belong to its question? A similarity that means something: compared with random pairs of the same set.

A cosine of .62 says nothing by itself. What is reported is the share of random pairs that are less alike: the question with other
answers of its language, and the answer with other questions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from metier import models
from metier.prepare.quality.terms import bucket, terms

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BaseEncoder", "Encoder", "FolderEncoder", "LexicalEncoder", "Related", "Relevance", "relevance_value"]

_LEAST_PAIRS = 8

Pair = tuple[str, str]
"""A question and its answer."""


class Encoder(Protocol):
    """Turns texts into vectors whose cosine tells how alike they are."""

    name: str
    centred: bool
    """Whether the vectors of a set share a large part that has to be taken off, as hidden states do (Mu and Viswanath 2018)."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector a text, float32 [texts, dimensions]; a text that has none is all zeros."""


class LexicalEncoder:
    """Shared words and pairs of Han letters, weighted by how rare they are in the set, hashed to `size` dimensions."""

    name = "lexical"
    centred = False

    def __init__(self, texts: Iterable[str], *, size: int = 4096) -> None:
        """Learn the weights ln(1 + texts / texts with the term) from `texts`, a sample of the set."""
        self._size = size
        seen = np.zeros(size, dtype=np.float32)
        total = 0
        for text in texts:
            total += 1
            seen[list({bucket(term, size) for term in terms(text, single=True)})] += 1
        self._weights = np.log1p((total + 1) / (seen + 1)).astype(np.float32)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (1 + ln of a term's count) times its weight, for each text."""
        found = np.zeros((len(texts), self._size), dtype=np.float32)
        for row, text in enumerate(texts):
            places, counts = np.unique([bucket(term, self._size) for term in terms(text, single=True)], return_counts=True)
            if len(places):
                found[row, places] = (1 + np.log(counts)) * self._weights[places]
        return found


class BaseEncoder:
    """The base model's own hidden states, averaged over a text."""

    name = "base"
    centred = True

    def __init__(self, model: Any, *, depth: float = 0.6) -> None:
        self._model = model
        self._depth = depth

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean hidden state of each text after `depth` of the layers."""
        states: NDArray[np.float32] = models.mean_states(self._model, texts, depth=self._depth)
        return states


class FolderEncoder:
    """A sentence encoder of the user's own, from a folder in the form of Hugging Face."""

    name = "encoder"
    centred = True

    def __init__(self, folder: Path) -> None:
        """Load the encoder. Raises ModelError if it cannot be used."""
        self._encoder = models.SentenceEncoder(folder)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean of each text's last hidden states."""
        states: NDArray[np.float32] = self._encoder.encode(texts)
        return states


@dataclass(frozen=True, slots=True)
class Related:
    """How alike a question and its answer are: the cosine, the share of random pairs that are less alike, and how many were drawn."""

    similarity: float
    above: float
    pairs: int


def relevance_value(above: float, *, irrelevant: float = 0.5) -> float:
    """Return 0 for a pair no more alike than `irrelevant` of the random pairs, 1 for one above all of them, in between in proportion."""
    return min(1.0, max(0.0, (above - irrelevant) / (1 - irrelevant))) if irrelevant < 1 else 0.0


class Relevance:
    """An encoder and the random pairs of one language that its similarities are compared with."""

    def __init__(self, encoder: Encoder, sample: Sequence[Pair]) -> None:
        """Encode the sample; where the encoder asks for it, its mean is taken off every vector."""
        self.encoder = encoder
        self._keys = tuple(np.asarray([_key(pair[side]) for pair in sample], dtype=np.uint64) for side in (0, 1))
        questions, answers = (encoder.encode([pair[side] for pair in sample]) for side in (0, 1))
        self._centres = tuple(_centre(side) if encoder.centred else np.zeros(side.shape[1], dtype=np.float32) for side in (questions, answers))
        self._questions, self._answers = _unit(questions - self._centres[0]), _unit(answers - self._centres[1])

    @property
    def usable(self) -> bool:
        """Whether there are enough different questions and answers to compare with."""
        return min(len(np.unique(keys)) for keys in self._keys) >= _LEAST_PAIRS

    def relate(self, pairs: Sequence[Pair]) -> list[Related | None]:
        """Return for each pair how it compares with random ones; None where a side has no vector or too few others are there.

        Pairs that share the question's or the answer's text are no random pairs and are left out. A tie counts half.
        """
        if not pairs or not self.usable:
            return [None] * len(pairs)
        raw = [self.encoder.encode([pair[side] for pair in pairs]) for side in (0, 1)]
        there = np.logical_and(raw[0].any(axis=1), raw[1].any(axis=1)).tolist()
        questions, answers = _unit(raw[0] - self._centres[0]), _unit(raw[1] - self._centres[1])
        own = np.einsum("ij,ij->i", questions, answers)
        forward, backward = questions @ self._answers.T, answers @ self._questions.T
        found: list[Related | None] = []
        for row, (question, answer) in enumerate(pairs):
            if not there[row]:
                found.append(None)
                continue
            other = (self._keys[0] != np.uint64(_key(question))) & (self._keys[1] != np.uint64(_key(answer)))
            drawn = np.concatenate([forward[row][other], backward[row][other]])
            if len(drawn) < 2 * _LEAST_PAIRS:
                found.append(None)
                continue
            # float32 products differ in their last digits with the shape of the matrix: what is that near is a tie.
            below, tied = (drawn < own[row] - 1e-5).sum(), (abs(drawn - own[row]) <= 1e-5).sum()
            found.append(Related(float(own[row]), float((below + 0.5 * tied) / len(drawn)), len(drawn)))
        return found


def _key(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big")


def _centre(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    there = vectors[vectors.any(axis=1)]
    return there.mean(axis=0) if len(there) else np.zeros(vectors.shape[1], dtype=np.float32)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: NDArray[np.float32] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return found


def percentile(value: float, drawn: Sequence[float]) -> float:
    """Return the share of `drawn` below a value, ties counting half. Raises ValueError if nothing was drawn."""
    if not drawn or math.isnan(value):
        raise ValueError("nothing to compare with")
    return (sum(item < value for item in drawn) + 0.5 * sum(item == value for item in drawn)) / len(drawn)
