"""The drop of a record: it leaves with its step, its reason and itself as JSON."""

from __future__ import annotations

import json

from metier.records import Drop, Record, record_to_dict

__all__ = ["drop"]


def drop(record: Record, step: str, reason: str) -> Drop:
    """Return the drop of a record that is kept as JSON in the ledger."""
    return Drop(record.id, step, reason, record.source, json.dumps(record_to_dict(record), ensure_ascii=False, sort_keys=True))
