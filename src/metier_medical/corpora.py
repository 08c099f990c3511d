"""Rows of well-known corpora, taken apart as `corpora.yaml` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["abstract_question", "mimic_note"]


def mimic_note(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a note of MIMIC-III, unless a physician marked it as an error (ISERROR is 1)."""
    if str(row["ISERROR"] or "").strip() not in ("1", "1.0"):
        yield row


def abstract_question(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a question of PubMedQA with its abstract as one text, each part under its name; what the test set keeps back is null."""
    labels = row.get("LABELS") or [""] * len(row["CONTEXTS"])
    parts = (f"{label}: {text}" if label else text for label, text in zip(labels, row["CONTEXTS"], strict=True))
    kept = {name: row.get(name) for name in ("@key", "QUESTION", "YEAR", "final_decision", "LONG_ANSWER")}
    yield {**kept, "CONTEXT": "\n".join(parts)}
