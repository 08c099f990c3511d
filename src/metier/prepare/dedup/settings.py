"""What a project says of duplicates."""

from __future__ import annotations

from pydantic import Field

from metier.config import Settings

__all__ = ["DedupSettings"]


class DedupSettings(Settings):
    """Which records count as the same. Exact duplicates always do."""

    near: bool = True
    """Look for near-duplicates too."""
    threshold: float = Field(default=0.8, ge=0.5, le=1.0)
    """Exact Jaccard similarity of shingles from which two records are near-duplicates. The banding of signatures follows from it."""
    han_shingle: int = Field(default=5, ge=2, le=32)
    """Characters a shingle where there are Han letters: 5 are 2 to 3 words."""
    other_shingle: int = Field(default=13, ge=2, le=64)
    """Characters a shingle elsewhere: 13 are 2 to 3 words."""
    word_shingle: int | None = Field(default=None, ge=1, le=32)
    """Words a shingle elsewhere, 5 for instance, in place of `other_shingle`; every Han letter counts as a word. Left out: characters."""
    answers: tuple[str, ...] = ("answer",)
    """Fields that hold an answer. Rows that agree in what is asked and differ in an answer, or in the label, are queued for arbitration."""
    score: str | None = None
    """A field with a number, such as a quality score. Of duplicates the one with the highest stays; the field itself is not compared."""
