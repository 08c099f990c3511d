"""The data card: what a dataset holds, where it comes from, what was done and what is known to be weak."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["data_card"]

_LIMITS = (
    "De-identification finds what its rules describe; measure what remains before the data leaves the institution.",
    "While the project's secret exists the data is pseudonymised, not anonymous.",
    "`drops.parquet` keeps malformed source lines as they stood, without de-identification: handle it like the sources.",
    "Rows that could not be de-identified are listed in `drops.parquet` without their text.",
    "The language is told by letters where the source does not say: Latin script counts as English.",
    "Near-duplicates are found by characters, not by meaning: paraphrases and translations may stand in two splits.",
    "Licences and bases are those that the project states; nobody has checked them here.",
)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    names = list(head)
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    return [*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows), ""]


_SOURCE_COLUMNS = ("file", "rows", "malformed", "encoding", "decided by", "licence", "basis", "SHA-256")


def _source_row(entry: Mapping[str, Any]) -> list[Any]:
    read = [entry["uri"], entry["rows"], entry["malformed"], entry["encoding"] or "binary", entry["encoding_reason"] or "format"]
    return [*read, entry["licence"], entry["basis"] or "not stated", entry["sha256"][:16]]


def data_card(facts: Mapping[str, Any], *, title: str) -> str:
    """Return the card as Markdown from a dataset's facts. It holds no text of any record."""
    lines = [f"# Data card: {title}", "", f"{facts['records']} records from {facts['rows']} source rows that stayed.", "", "## Records", ""]
    for name in ("split", "language", "task", "licence"):
        lines += _table([name, "records"], facts["counts"][name].items())
    lines += ["## Sources", ""]
    lines += _table(_SOURCE_COLUMNS, (_source_row(entry) for entry in facts["register"]))
    lines += ["## Steps", ""]
    lines += _table(["step", "settings"], ((step["name"], ", ".join(f"{key}: {value}" for key, value in step["settings"].items())) for step in facts["steps"]))
    lines += ["## Dropped", ""]
    lines += _table(["reason", "number"], facts["drops"].items()) if facts["drops"] else ["Nothing.", ""]
    lines += ["## Identifiers replaced", ""]
    lines += _table(["kind", "number"], facts["identifiers"].items()) if facts["identifiers"] else ["None.", ""]
    lines += ["## Duplicates", ""]
    lines += _table(["case", "number"], facts["duplicates"].items())
    lines += ["## Do the splits share anything?", ""]
    lines += _table(["kind", "distinct", "in more than one split"], ([kind, item["distinct"], item["shared"]] for kind, item in facts["disjoint"].items()))
    lines += ["## Known limits", "", *(f"- {limit}" for limit in _LIMITS), ""]
    return "\n".join(lines)
