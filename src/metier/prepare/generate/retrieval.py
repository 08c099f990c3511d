"""Passages by BM25 (Robertson and Zaragoza, Found. Trends Inf. Retr. 3, 2009), with pairs of Han letters as words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

__all__ = ["Index", "words"]

_PIECE = re.compile("[\u3400-\u9fff]+|[a-z]+|[0-9]+(?:[.,/][0-9]+)*")


def words(text: str) -> list[str]:
    """Return the words of a text: Latin words in lower case, numbers, and every pair of neighbouring Han letters (a single one alone)."""
    found: list[str] = []
    for piece in _PIECE.findall(text.lower()):
        if "\u3400" <= piece[0] <= "\u9fff" and len(piece) > 1:
            found += [piece[place : place + 2] for place in range(len(piece) - 1)]
        else:
            found.append(piece)
    return found


class Index:
    """An index over passages. k1 and b have the values that the authors recommend where nothing is tuned."""

    def __init__(self, texts: Sequence[str], *, k1: float = 1.2, b: float = 0.75) -> None:
        self.size = len(texts)
        counts = [Counter(words(text)) for text in texts]
        lengths = np.array([count.total() for count in counts], dtype=np.float64)
        postings: dict[str, tuple[list[int], list[int]]] = {}
        for number, count in enumerate(counts):
            for word, times in count.items():
                places, frequencies = postings.setdefault(word, ([], []))
                places.append(number)
                frequencies.append(times)
        norm = k1 * (1 - b + b * lengths / (lengths.mean() if lengths.any() else 1.0))
        self._scores: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for word, (places, frequencies) in postings.items():
            at, times_ = np.array(places), np.array(frequencies, dtype=np.float64)
            weight = np.log(1 + (self.size - len(places) + 0.5) / (len(places) + 0.5))
            self._scores[word] = at, weight * times_ * (k1 + 1) / (times_ + norm[at])

    def search(self, query: str, count: int, *, lowest: float = 0.0) -> list[tuple[int, float]]:
        """Return the numbers and scores of at most `count` passages above `lowest`, the best first, of equals the earlier."""
        if not self.size:
            return []
        total = np.zeros(self.size)
        for word in dict.fromkeys(words(query)):
            if word in self._scores:
                at, score = self._scores[word]
                total[at] += score
        best = np.argsort(-total, kind="stable")[:count]
        return [(int(number), float(total[number])) for number in best if total[number] > lowest]
