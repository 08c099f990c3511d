"""Features of a record for the check of labels: words of its text, or its columns where it is a row of a table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from metier.errors import MissingExtra
from metier.prepare.compare import fold
from metier.prepare.language import HAN, han_share
from metier.records import Record

__all__ = ["FEATURES", "analyse", "feature_matrix", "judged_text", "tabular"]

FEATURES = "TF-IDF of Han runs (1 to 3), words and pairs of words; of tables the columns"
_LONG_COLUMN = 48


def judged_text(record: Record, *, fields: Sequence[str] = ()) -> str:
    """Return what a label is about: of a conversation what users say, else the text, else the text columns (all, or `fields`)."""
    if record.messages:
        return "\n".join(message.content for message in record.messages if message.role == "user")
    if record.text.strip():
        return record.text
    return "\n".join(str(record.metadata[name]) for name in fields or sorted(record.metadata) if isinstance(record.metadata.get(name), str))


def tabular(record: Record) -> bool:
    """Return whether a record is a row of a table: no text, no messages, and no column as long as a sentence."""
    if record.text.strip() or record.messages or not record.metadata:
        return False
    return all(not isinstance(value, str) or len(value) <= _LONG_COLUMN or " : " in value for value in record.metadata.values())


@lru_cache(maxsize=1)
def _split() -> Any:
    import re

    return re.compile(f"[{HAN}]+|[^\\W_]+")


def analyse(text: str) -> list[str]:
    """Return the features of a text: Chinese runs of one to three letters; words and pairs of neighbouring words."""
    found: list[str] = []
    words: list[str] = []
    for piece in _split().findall(fold(text)):
        if han_share(piece) == 1:
            for size in (1, 2, 3):
                found.extend([piece[start : start + size] for start in range(len(piece) - size + 1)])
            words = []
        else:
            found.append(piece)
            words.append(piece)
            if len(words) > 1:
                found.append(f"{words[-2]} {piece}")
    return found


def feature_matrix(records: Sequence[Record], *, features: int, fields: Sequence[str] = ()) -> Any:
    """Return the features [records, features], a sparse float64 matrix. Raises MissingExtra without scikit-learn."""
    try:
        from scipy.sparse import csr_matrix
        from sklearn.feature_extraction import DictVectorizer
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise MissingExtra("scikit-learn", "labels", "the check of labels") from None
    if all(map(tabular, records)):
        return csr_matrix(DictVectorizer().fit_transform(_columns(records)))
    texts = [judged_text(record, fields=fields) for record in records]
    least = 2 if len(texts) >= 50 else 1
    vectors = TfidfVectorizer(analyzer=analyse, sublinear_tf=True, min_df=least, max_df=0.9 if len(texts) >= 50 else 1.0, max_features=features)
    return vectors.fit_transform(texts)


def _columns(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return the columns of rows: text as categories, numbers in standard deviations from their mean."""
    numbers: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.metadata.items():
            if (number := _number(value)) is not None:
                numbers.setdefault(name, []).append(number)
    numeric = {name: (float(np.mean(found)), float(np.std(found)) or 1.0) for name, found in numbers.items() if len(found) > 0.9 * len(records)}
    rows = []
    for record in records:
        row: dict[str, Any] = {}
        for name, value in sorted(record.metadata.items()):
            number = _number(value)
            if name in numeric and number is not None:
                mean, deviation = numeric[name]
                row[name] = (number - mean) / deviation
            elif value is not None and isinstance(value, str | int | float):
                row[name] = str(value)
        rows.append(row)
    return rows


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def text_key(text: str) -> str:
    """Return what two records with the same text share: the digest of the folded text."""
    return hashlib.sha256(fold(text).encode(errors="surrogatepass")).hexdigest()[:24]
