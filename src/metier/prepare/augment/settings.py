"""What the project file says about augmentation."""

from __future__ import annotations

from pydantic import Field, model_validator

from metier.config import Settings
from metier.prepare.added import ElsewhereSettings

__all__ = ["AugmentSettings", "FilterSettings", "Shares"]


class Shares(Settings):
    """For which share of the training records each kind of variant is made."""

    synonym: float = Field(default=0.2, ge=0, le=1)
    """A term of the question under another name of the same concept."""
    template: float = Field(default=0.2, ge=0, le=1)
    """The question in another frame: greeting, closing, a phrase for one of the same meaning."""
    colloquial: float = Field(default=0.1, ge=0, le=1)
    """The question as people type it."""
    typo: float = Field(default=0.1, ge=0, le=1)
    """Wrong letters of the same sound (Chinese) or of the next key (English) in the question."""
    format: float = Field(default=0.1, ge=0, le=1)
    """Lost or full-width signs in the question: 140/90 becomes 14090. The answer stays right."""
    opening: float = Field(default=0.1, ge=0, le=1)
    """A conversation that begins before the question."""
    follow_up: float = Field(default=0.1, ge=0, le=1)
    """A second question about the answer, answered from the answer itself."""
    negative: float = Field(default=0.1, ge=0, le=1)
    """A wrong answer, which is not learnt, then what is wrong, then the right one."""
    refusal: float = Field(default=0.0, ge=0, le=1)
    """Polite refusals of questions of other fields, as a share of the records; needs `elsewhere`."""
    written: float = Field(default=0.0, ge=0, le=1)
    """Questions rewritten by a model; needs a writer."""
    translated: float = Field(default=0.0, ge=0, le=1)
    """Questions translated and translated back by a model; needs a writer."""


class FilterSettings(Settings):
    """Which variants of a question are good enough."""

    lowest: float = Field(default=0.2, ge=0, le=1)
    """Similarity (Dice's coefficient of letter pairs) to the parent below which a variant says something else."""
    highest: float = Field(default=0.98, ge=0, le=1)
    """Similarity above which it adds nothing."""
    shortest: float = Field(default=0.4, gt=0)
    """Length against the parent's."""
    longest: float = Field(default=2.5, gt=0)
    """Length against the parent's."""

    @model_validator(mode="after")
    def _in_order(self) -> FilterSettings:
        if self.lowest >= self.highest or self.shortest >= self.longest:
            raise ValueError("the lower bounds have to be below the upper ones")
        return self


class AugmentSettings(Settings):
    """Variants of the training records; validation and test are never touched."""

    enabled: bool = False
    """Make variants at all."""
    seed: int = 0
    """Another seed gives other variants; the same seed the same, whatever the order of the records."""
    shares: Shares = Shares()
    """How many of each kind."""
    elsewhere: ElsewhereSettings | None = None
    """Questions of other fields, for refusals."""
    filter: FilterSettings = FilterSettings()
    """Bounds for what a model wrote."""
    temperature: float = Field(default=0.8, ge=0, le=2)
    """Temperature of the writer."""
    maximum_tokens: int = Field(default=160, ge=1)
    """Length of what the writer may write."""
    batch: int = Field(default=32, ge=1)
    """Prompts that are given to the writer at once."""
