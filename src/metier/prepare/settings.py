"""What a project says of preparation."""

from __future__ import annotations

from pydantic import model_validator

from metier.config import Settings
from metier.prepare.augment.settings import AugmentSettings
from metier.prepare.bias import BiasSettings
from metier.prepare.clean.settings import CleanSettings
from metier.prepare.compose import ComposeSettings
from metier.prepare.decontaminate import DecontaminateSettings
from metier.prepare.dedup.settings import DedupSettings
from metier.prepare.generate.settings import GenerateSettings
from metier.prepare.labels.settings import LabelSettings
from metier.prepare.lengths import LengthSettings
from metier.prepare.mix import MixSettings
from metier.prepare.quality.settings import QualitySettings
from metier.prepare.split import SplitSettings
from metier.prepare.standardize.settings import StandardizeSettings
from metier.prepare.writing import WriterSettings
from metier.privacy.settings import DeidentifySettings

__all__ = ["CleanSettings", "DedupSettings", "DeidentifySettings", "PrepareSettings", "SplitSettings", "for_labels"]


class PrepareSettings(Settings):
    """The steps from source rows to a dataset."""

    clean: CleanSettings = CleanSettings()
    """Tidying of text."""
    deidentify: DeidentifySettings = DeidentifySettings()
    """Personal identifiers."""
    standardize: StandardizeSettings = StandardizeSettings(enabled=False)
    """Preferred terms and their codes; off unless a project names it."""
    compose: ComposeSettings = ComposeSettings()
    """From rows to conversations."""
    lengths: LengthSettings = LengthSettings()
    """Records that are longer than training takes."""
    quality: QualitySettings = QualitySettings()
    """What is measured of each record's quality."""
    dedup: DedupSettings = DedupSettings()
    """Duplicates."""
    labels: LabelSettings = LabelSettings()
    """The check of labels."""
    groups: BiasSettings = BiasSettings()
    """The view of topics and groups."""
    split: SplitSettings = SplitSettings()
    """Training, validation and test."""
    decontaminate: DecontaminateSettings = DecontaminateSettings()
    """Training rows that hold what they will be tested with."""
    augment: AugmentSettings = AugmentSettings()
    """Variants of training records."""
    generate: GenerateSettings = GenerateSettings()
    """New training conversations."""
    writer: WriterSettings = WriterSettings()
    """Who writes where a step asks for text."""
    mix: MixSettings | None = None
    """How groups of training records are mixed and ordered; left out: every record once, in the order of the sources."""

    @model_validator(mode="after")
    def _writes_with_somebody(self) -> PrepareSettings:
        """Say before the work begins what only the step that writes would notice, hours later."""
        nobody = self.writer.use == "none"
        shares = self.augment.shares
        if nobody and self.augment.enabled and (shares.written or shares.translated):
            raise ValueError("`augment.shares` asks for written or translated variants, and nobody writes: set `writer: {use: base}` or the shares to 0")
        if self.augment.enabled and (shares.refusal > 0) != (self.augment.elsewhere is not None):
            raise ValueError("refusals need both a share and questions: `shares: {refusal: 0.05}` and `elsewhere: {path: FILE, licence: NAME}`")
        if self.generate.enabled and (nobody or self.generate.knowledge is None):
            raise ValueError("`generate` needs a knowledge base and somebody who writes: set `generate: {knowledge: FOLDER}` and `writer: {use: base}`")
        return self


def for_labels(settings: PrepareSettings) -> PrepareSettings:
    """Return the settings where labels or spans are taught: rows stay texts, unless the project says what becomes of them."""
    if "compose" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"compose": ComposeSettings(text="only")})
