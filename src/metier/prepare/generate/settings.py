"""What the project file says about generation."""

from __future__ import annotations

from pydantic import Field

from metier.config import Settings
from metier.prepare.augment.settings import FilterSettings

__all__ = ["GenerateSettings"]


class GenerateSettings(Settings):
    """New conversations from examples and a knowledge base, written by a model and checked against what they rest on."""

    enabled: bool = False
    """Generate at all. It needs a `knowledge` folder and a writer (`prepare.writer`)."""
    knowledge: str | None = None
    """Folder of .txt and .md files that answers rest on, in the project."""
    licence: str = "internal"
    """Terms of use of the knowledge base."""
    basis: str | None = None
    """On what ground it may be used, if the licence does not say."""
    seed: int = 0
    """Another seed gives other conversations."""
    variants: int = Field(default=3, ge=1, le=100)
    """New questions for each example."""
    passages: int = Field(default=3, ge=1, le=20)
    """Passages that an answer rests on, at most."""
    lowest_score: float = Field(default=1.0, ge=0)
    """BM25 score below which a passage has nothing to do with the question."""
    support: float = Field(default=0.35, ge=0, le=1)
    """Share of an answer's words (Han letter pairs, Latin words) that have to stand in its passages."""
    shortest: int = Field(default=4, ge=1)
    """Characters that a question or an answer has at least."""
    follow_up: float = Field(default=0.3, ge=0, le=1)
    """Share of the conversations that are led on to a second question."""
    question: FilterSettings = FilterSettings(lowest=0.0, highest=0.95, shortest=0.2, longest=5.0)
    """Bounds of a new question against its example."""
    temperature: float = Field(default=0.8, ge=0, le=2)
    """For questions; answers are written greedily."""
    maximum_tokens: int = Field(default=256, ge=8)
    """Length of an answer."""
    batch: int = Field(default=8, ge=1)
    """Examples whose work is kept as one finished piece: what an interruption may cost."""
