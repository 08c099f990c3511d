"""What a project says of preparation."""

from __future__ import annotations

from typing import Literal

from metier.config import Settings
from metier.prepare.compose import ComposeSettings
from metier.prepare.dedup.settings import DedupSettings
from metier.prepare.split import SplitSettings

__all__ = ["CleanSettings", "DedupSettings", "DeidentifySettings", "PrepareSettings", "SplitSettings"]


class CleanSettings(Settings):
    """What is tidied in the text itself. Letters, digits and punctuation are never changed."""

    invisible: bool = True
    """Remove control, zero-width and bidirectional-control characters."""
    blanks: bool = True
    """Make runs of blanks one blank and more than one empty line one; strip both ends."""


class DeidentifySettings(Settings):
    """What happens to personal identifiers."""

    enabled: bool = True
    """Switch off only for data that holds no personal data, or that was de-identified before."""
    policy: Literal["safe-harbor"] = "safe-harbor"
    """Which identifiers are replaced."""
    replace: Literal["surrogate", "mask", "hash"] | None = None
    """What stands in the text afterwards; left out: what each identifier's own rule says."""


class PrepareSettings(Settings):
    """The steps from source rows to a dataset."""

    clean: CleanSettings = CleanSettings()
    """Tidying of text."""
    deidentify: DeidentifySettings = DeidentifySettings()
    """Personal identifiers."""
    compose: ComposeSettings = ComposeSettings()
    """From rows to conversations."""
    dedup: DedupSettings = DedupSettings()
    """Duplicates."""
    split: SplitSettings = SplitSettings()
    """Training, validation and test."""
