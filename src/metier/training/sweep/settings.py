"""Settings of the `sweep:` section: what is searched, how often, and when a trial is given up."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from metier.config import Settings
from metier.digest import digest_of

__all__ = ["RangeSettings", "Searched", "SweepSettings"]


class RangeSettings(Settings):
    """All numbers between two bounds, both of them included."""

    low: int | float
    """The lowest value."""
    high: int | float
    """The highest value."""
    log: bool = False
    """Whether ratios count, not differences: for learning rates and ranks."""

    @model_validator(mode="after")
    def _holds_something(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"the range from {self.low:g} to {self.high:g} is empty\n    -> give a low below its high")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range cannot begin at {self.low:g}\n    -> give a low above 0, or leave log out")
        return self


def _kind(value: Any) -> str:
    return "range" if isinstance(value, dict | RangeSettings) else "choices"


Searched: TypeAlias = Annotated[Annotated[RangeSettings, Tag("range")] | Annotated[tuple[Any, ...], Tag("choices")], Discriminator(_kind)]
"""A range of numbers, or a list of values to choose from."""


class SweepSettings(Settings):
    """The `sweep:` section: `metier sweep` searches for training settings with the lowest validation loss, or with the best score."""

    search: dict[str, Searched] = {}
    """Keys of `training:` and what is tried for each: a list of values, or a range such as `{low: 0.0001, high: 0.005, log: true}`."""
    by: Literal["auto", "loss", "score"] = "auto"
    """What trials are compared by: the validation loss, or the score that `training.validation` names; auto: what `training.validation.by` says."""
    trials: int = Field(default=20, ge=1)
    """Trainings at most. Raised later, the sweep goes on; where all combinations are fewer, each is tried once."""
    seed: int = 0
    """Seed of the choice of settings. The seed of the trainings is `training.seed`, the same for all."""
    prune: Literal["median", "hyperband", "none"] = "median"
    """When a trial is given up at a validation: worse than the median of complete trials that are no larger, by Hyperband, or never."""
    warmup: int = Field(default=4, ge=1)
    """median: how many complete trials it takes to judge by."""
    parallel: int = Field(default=1, ge=1)
    """Trials at a time. A trial is chosen by the results of those before it but the last `parallel` - 1, so another number gives another sweep."""

    @property
    def identity(self) -> str:
        """Digest of what decides which trials are made; how many of them does not."""
        return digest_of(self.model_dump(mode="json", exclude={"trials"}))
