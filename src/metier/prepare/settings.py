"""What a project says of preparation."""

from __future__ import annotations

from metier.config import Settings
from metier.prepare.clean.settings import CleanSettings
from metier.prepare.compose import ComposeSettings
from metier.prepare.dedup.settings import DedupSettings
from metier.prepare.split import SplitSettings
from metier.privacy.settings import DeidentifySettings

__all__ = ["CleanSettings", "DedupSettings", "DeidentifySettings", "PrepareSettings", "SplitSettings"]


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
