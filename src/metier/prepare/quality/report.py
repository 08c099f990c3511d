"""The quality report: one row a record in Parquet, and a summary of the set as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metier.prepare.quality.scoring import DIMENSIONS, Assessment
from metier.prepare.quality.settings import QualitySettings
from metier.shards import write_rows

__all__ = ["QUALITY_FILE", "Summary", "write_report"]

QUALITY_FILE = "quality.parquet"
_BINS = 20
_COLUMNS = {
    "record_id": "string",
    "language": "string",
    "verdict": "string",
    "score": "float",
    "matrix": "float",
    "dialogue": "float",
    **dict.fromkeys(DIMENSIONS, "float"),
    "reasons": "strings",
}


@dataclass(slots=True)
class _Values:
    """Count, sum and histogram of one score."""

    count: int = 0
    total: float = 0.0
    bins: list[int] = field(default_factory=lambda: [0] * _BINS)

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.bins[min(_BINS - 1, int(value * _BINS))] += 1

    def facts(self, records: int) -> dict[str, Any]:
        return {"measured": self.count, "not_measured": records - self.count, "mean": self.total / self.count if self.count else None, "histogram": self.bins}


class Summary:
    """Counts of a set while its assessments go by: verdicts, scores, what was found, by what means."""

    def __init__(self) -> None:
        self.records = 0
        self._verdicts: dict[str, Counter[str]] = {}
        self._scores = {name: _Values() for name in ("score", "matrix", "dialogue", *DIMENSIONS)}
        self._means: dict[str, Counter[str]] = {name: Counter() for name in DIMENSIONS}
        self._findings: Counter[str] = Counter()

    def add(self, found: Assessment) -> None:
        """Count one assessment."""
        self.records += 1
        self._verdicts.setdefault(found.language or "unknown", Counter())[found.verdict] += 1
        for name, score in (("score", found.score), ("matrix", found.matrix), ("dialogue", found.dialogue)):
            if score is not None:
                self._scores[name].add(score)
        for name, dimension in found.dimensions.items():
            if dimension.value is None:
                self._means[name][f"not measured: {_general(dimension.why)}"] += 1
                continue
            self._scores[name].add(dimension.value)
            self._means[name][_general((dimension.how,))] += 1
            if dimension.value < 1 or name == "safety":
                self._findings.update({f"{name}: {_general((why,))}" for why in dimension.why})

    def facts(self, settings: QualitySettings) -> dict[str, Any]:
        """Return the summary with the weights and bounds that it rests on. It holds no text of any record."""
        verdicts: Counter[str] = Counter()
        for counts in self._verdicts.values():
            verdicts.update(counts)
        return {
            "records": self.records,
            "verdicts": dict(sorted(verdicts.items())),
            "verdicts_by_language": {language: dict(sorted(counts.items())) for language, counts in sorted(self._verdicts.items())},
            "scores": {name: values.facts(self.records) for name, values in self._scores.items()},
            "means": {name: dict(counts.most_common()) for name, counts in self._means.items()},
            "findings": dict(sorted(self._findings.items(), key=lambda item: (-item[1], item[0]))),
            "matrix": settings.matrix.model_dump(),
            "dialogue": settings.dialogue.model_dump(),
            "thresholds": settings.thresholds.model_dump(),
            "dropping": settings.drop,
        }


def _general(why: tuple[str, ...]) -> str:
    """Return the part of an explanation that many records share: the rule's name, the means without its numbers."""
    text = why[0] if why else "unknown"
    name = text.split(":")[0]
    if name.isidentifier():
        return name
    if text.startswith("checked"):
        return "checks on what was asked"
    for start in _SHARED:
        if start in text:
            return start
    return "perplexity" if "perplexity" in text else text.split(" (")[0]


_SHARED = (
    "units that the question does not hold",
    "random pairs",
    "the best passages give another number",
    "is not in the knowledge base",
    "the knowledge base says nothing of it",
    "support",
    "not done",
)


def write_report(assessments: Iterable[Assessment], folder: Path, settings: QualitySettings) -> dict[str, Any]:
    """Write `quality.parquet` into a folder and return the summary."""
    summary = Summary()

    def rows() -> Iterator[Mapping[str, Any]]:
        for found in assessments:
            summary.add(found)
            values = {name: found.dimensions[name].value for name in DIMENSIONS}
            scores = {"score": found.score, "matrix": found.matrix, "dialogue": found.dialogue}
            yield {"record_id": found.record_id, "language": found.language, "verdict": found.verdict, **scores, **values, "reasons": list(found.reasons)}

    write_rows(folder / QUALITY_FILE, (dict(row) for row in rows()), _COLUMNS)
    return summary.facts(settings)
