"""The cheap part of quality, row by row: the form's rules, as notes for the lineage or as the reason to leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from metier.packs.spec import QualityRule
from metier.prepare.drops import drop
from metier.prepare.quality.assess import form
from metier.prepare.quality.settings import QualitySettings
from metier.records import Drop, Record

__all__ = ["screen", "screened"]

STEP = "quality"


def screen(record: Record, settings: QualitySettings, quality: Sequence[QualityRule] = ()) -> tuple[Record, tuple[str, ...]] | Drop:
    """Return the record with a note for each rule that found something (`quality:repeated_text`), or its drop.

    It is dropped only where `settings.drop` is on and fluency, format or information is below `thresholds.form`; the reason names the
    dimension, its value, and the rules: `poor_format:0.20<0.25:markup,contacts`.
    """
    if not settings.enabled:
        return record, ()
    dimensions, findings = form(record, settings, quality, novel=False)
    if settings.drop and findings:
        for name in ("fluency", "format", "information"):
            value = dimensions[name].value
            if value is not None and value < settings.thresholds.form:
                rules = ",".join(found.rule for found in findings if found.dimension == name)
                return drop(record, STEP, f"poor_{name}:{value:.2f}<{settings.thresholds.form:g}" + (f":{rules}" if rules else ""))
    return record, tuple(dict.fromkeys(f"{STEP}:{found.rule}" for found in findings))


def screened(settings: QualitySettings, quality: Sequence[QualityRule] = ()) -> Callable[[Iterable[Record]], Iterator[Record | Drop]]:
    """Return the step that drops what `screen` drops."""

    def step(records: Iterable[Record]) -> Iterator[Record | Drop]:
        for record in records:
            found = screen(record, settings, quality)
            yield found if isinstance(found, Drop) else found[0]

    return step
