"""Text as the metrics see it: tokens, normal form, chrF and ROUGE-L. Chinese counts by character, other languages by word."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

__all__ = ["chrf", "language_of", "normalise", "rouge_l", "tokens"]

_TOKEN = regex.compile(r"\p{Han}|\d+(?:\.\d+)?|[[\p{L}\p{M}\p{N}]--[\p{Han}]]+", regex.V1)
_HAN = regex.compile(r"\p{Han}")
# Signs, decimal points before a digit and per cent signs belong to the value and stay.
_EDGE = r"[\p{Ps}\p{Pe}\p{Pi}\p{Pf}.,;:!?'\"`*_\u3001\u3002\u2026\s]"
_EDGES = regex.compile(rf"^(?:(?!\.\d){_EDGE})+|{_EDGE}+$")
_SPACES = regex.compile(r"\s+")


def language_of(text: str) -> str:
    """Return `zh` for text with a Han character in it, else `en`: for items that do not say their language."""
    return "zh" if _HAN.search(text) else "en"


def tokens(text: str) -> list[str]:
    """Return the tokens of a text in lower case: each Han character, each number, each run of other letters."""
    return [match.group() for match in _TOKEN.finditer(text.lower())]


def normalise(text: str) -> str:
    """Return a text for exact comparison: NFKC, lower case, single spaces, no punctuation at its two ends.

    NFKC (Unicode TR 15) makes full-width letters, digits and punctuation equal to the usual ones; digits, units and
    inner punctuation stay as they are.
    """
    folded: str = _SPACES.sub(" ", unicodedata.normalize("NFKC", text).lower())
    stripped: str = _EDGES.sub("", folded)
    return stripped


def _grams(text: str, size: int) -> Counter[str]:
    return Counter(text[start : start + size] for start in range(len(text) - size + 1))


def chrf(prediction: str, reference: str, *, order: int = 6, beta: float = 2.0) -> float:
    """Return the character n-gram F-score of one text, between 0 and 1 (sacrebleu prints 100 times that).

    Popovic, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015; order 6, beta 2 and the effective
    order of sacrebleu's default, white space left out. Characters are the unit in every language.
    """
    guess, gold = "".join(prediction.split()), "".join(reference.split())
    precision = recall = 0.0
    effective = 0
    for size in range(1, order + 1):
        left, right = _grams(guess, size), _grams(gold, size)
        if not left or not right:
            continue
        matches = (left & right).total()
        precision += matches / left.total()
        recall += matches / right.total()
        effective += 1
    if not effective or not precision + recall:
        return 0.0
    precision, recall = precision / effective, recall / effective
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def _longest_common(left: Sequence[str], right: Sequence[str]) -> int:
    """Return the length of the longest common subsequence (bit-parallel form, Hyyro, 2004)."""
    places: dict[str, int] = {}
    for index, token in enumerate(left):
        places[token] = places.get(token, 0) | 1 << index
    mask = (1 << len(left)) - 1
    row = mask
    for token in right:
        matched = row & places.get(token, 0)
        row = (row + matched | row - matched) & mask
    return len(left) - row.bit_count()


def rouge_l(prediction: str, reference: str) -> float:
    """Return ROUGE-L F1 over tokens, between 0 and 1 (Lin, "ROUGE", 2004, section 3): Chinese by character, words else."""
    guess, gold = tokens(prediction), tokens(reference)
    common = _longest_common(guess, gold)
    if not common:
        return 0.0
    precision, recall = common / len(guess), common / len(gold)
    return 2 * precision * recall / (precision + recall)
