"""From source rows to a dataset: cleaned, de-identified, without duplicates, composed, split without leaks, with lineage."""

from metier.prepare.build import Origin, build
from metier.prepare.deidentify import pseudonym
from metier.prepare.inspect import dropped, examples, sample, summary
from metier.prepare.settings import CleanSettings, DedupSettings, DeidentifySettings, PrepareSettings, SplitSettings

__all__ = [
    "CleanSettings",
    "DedupSettings",
    "DeidentifySettings",
    "Origin",
    "PrepareSettings",
    "SplitSettings",
    "build",
    "dropped",
    "examples",
    "pseudonym",
    "sample",
    "summary",
]
