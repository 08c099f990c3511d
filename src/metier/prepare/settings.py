"""What a project says of preparation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from metier.config import Settings
from metier.prepare.clean.settings import CleanSettings

__all__ = ["CleanSettings", "DedupSettings", "DeidentifySettings", "PrepareSettings", "SplitSettings"]


class DeidentifySettings(Settings):
    """What happens to personal identifiers."""

    enabled: bool = True
    """Switch off only for data that holds no personal data, or that was de-identified before."""
    policy: Literal["safe-harbor"] = "safe-harbor"
    """Which identifiers are replaced."""
    replace: Literal["surrogate", "mask", "hash"] | None = None
    """What stands in the text afterwards; left out: what each identifier's own rule says."""


class DedupSettings(Settings):
    """Which records count as the same. Exact duplicates always do."""

    near: bool = True
    """Look for near-duplicates too."""
    threshold: float = Field(default=0.8, ge=0.7, le=1.0)
    """Exact Jaccard similarity of shingles from which two records are near-duplicates. Below 0.7 the banding of signatures finds too few pairs."""
    han_shingle: int = Field(default=5, ge=2, le=32)
    """Characters a shingle in text of Han letters: 5 are 2 to 3 words."""
    other_shingle: int = Field(default=13, ge=2, le=64)
    """Characters a shingle in other text: 13 are 2 to 3 words."""


class SplitSettings(Settings):
    """How records are divided; near-duplicates always stay together."""

    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the records that is held out for evaluation."""
    validation: float = Field(default=0.1, ge=0, lt=1)
    """Share of the records that is watched during training."""
    by: tuple[Literal["subject", "group", "prompt"], ...] = ("subject", "group", "prompt")
    """What records that stay in one split have in common. Leave `prompt` out where one prompt is asked of all records."""
    seed: int = 0
    """Another seed gives another division; the same seed the same, whatever the order of the records."""
    time: bool = False
    """Put the newest records into test, the next newest into validation. Every record needs a time then."""

    @model_validator(mode="after")
    def _leave_some(self) -> SplitSettings:
        if self.test + self.validation >= 1:
            raise ValueError(f"test {self.test} and validation {self.validation} leave nothing to train on; together they have to be below 1")
        return self


class PrepareSettings(Settings):
    """The steps from source rows to a dataset."""

    clean: CleanSettings = CleanSettings()
    """Tidying of text."""
    deidentify: DeidentifySettings = DeidentifySettings()
    """Personal identifiers."""
    dedup: DedupSettings = DedupSettings()
    """Duplicates."""
    split: SplitSettings = SplitSettings()
    """Training, validation and test."""
