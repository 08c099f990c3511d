"""What a record asks of a model with a head, and what it says the answer is. Training and evaluation both read it here."""

from __future__ import annotations

import math

from metier.models.labels import LabelTask
from metier.records import Record

__all__ = ["PAIR", "SEVERAL", "answer_of", "number_of", "pair_of", "text_of"]

PAIR = "pair"
"""Name of the column (in a record's metadata) with the second text of a pair."""
SEVERAL = "labels"
"""Name of the column (in a record's metadata) with any number of labels: a list, or names with `|` between them."""

_TRUTH = {"true": 1.0, "false": 0.0}


def text_of(record: Record) -> str:
    """Return the text that is read: the record's own, or what the user says before the answer that is learnt."""
    if record.text or not record.messages:
        return record.text
    learnt = [place for place, message in enumerate(record.messages) if message.learn]
    return "\n\n".join(message.content for message in record.messages[: learnt[-1] if learnt else None] if message.role == "user")


def pair_of(record: Record) -> str | None:
    """Return the second text of a pair, or None."""
    value = record.metadata.get(PAIR)
    return value if isinstance(value, str) and value.strip() else None


def answer_of(record: Record, task: LabelTask) -> tuple[str, ...] | None:
    """Return the label, the sorted labels or the types of the spans that a record has; None for a record that says nothing.

    Of tagging a record without spans says that there are none; of several labels an empty list says that none applies.
    """
    if task == "tagging":
        return tuple(sorted({span.type for span in record.spans})) if record.text else None
    if task == "multi-label":
        value = record.metadata.get(SEVERAL, record.label)
        if value is None:
            return None
        names = value if isinstance(value, list | tuple) else str(value).split("|")
        return tuple(sorted({str(name).strip() for name in names} - {""}))
    return None if record.label is None else (record.label,)


def number_of(record: Record) -> float | None:
    """Return the label as a number (true is 1, false is 0), or None for a record without one."""
    if record.label is None:
        return None
    text = record.label.strip()
    try:
        value = _TRUTH.get(text.lower(), math.nan) if text.lower() in _TRUTH else float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
