"""What a project says of labels: how suspects are looked for, what happens to them."""

from __future__ import annotations

from pydantic import Field

from metier.config import Settings

__all__ = ["LabelSettings"]


class LabelSettings(Settings):
    """The check of labels. No label is ever changed by it: suspects go to a review file."""

    suspects: bool = False
    """Look for suspected label errors by cross-validation (extra `labels`); takes seconds to minutes."""
    drop: bool = False
    """Drop suspects and contradictory annotations instead of only listing them."""
    folds: int = Field(default=5, ge=2, le=20)
    """Parts for cross-validation; records of one subject, one group or one text are in one part."""
    least: int = Field(default=5, ge=2)
    """Records that a class needs to be judged."""
    features: int = Field(default=30_000, ge=100)
    """Most different features: runs of one to three Han letters, words and pairs of words."""
    seed: int = 0
    """Another seed gives other folds and draws other records."""
