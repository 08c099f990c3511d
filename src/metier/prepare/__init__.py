"""From source rows to a dataset: cleaned, de-identified, without duplicates, composed, split without leaks, with lineage."""

from metier.prepare.build import Origin, build
from metier.prepare.deidentify import pseudonym
from metier.prepare.inspect import dropped, examples, sample, summary
from metier.prepare.outside import Outside, look_outside
from metier.prepare.proof import check_proof
from metier.prepare.settings import CleanSettings, DedupSettings, DeidentifySettings, PrepareSettings, SplitSettings, for_labels

__all__ = [
    "CleanSettings",
    "DedupSettings",
    "DeidentifySettings",
    "Origin",
    "Outside",
    "PrepareSettings",
    "SplitSettings",
    "build",
    "check_proof",
    "dropped",
    "examples",
    "for_labels",
    "look_outside",
    "pseudonym",
    "sample",
    "summary",
]
