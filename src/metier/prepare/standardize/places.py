"""The places of terms after a later step changed what they stand in: moved along, or taken away where they hold no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["TERMS", "in_part", "in_turns", "without_text"]

TERMS = "terms"
"""Key of the metadata under which mentions are kept."""
_TEXT = "text"
_MESSAGES = "messages."


def in_part(metadata: Mapping[str, Any], start: int, end: int) -> dict[str, Any]:
    """Return the metadata of the part from `start` to `end` of a text: its own terms with their places in it; terms of other parts leave."""

    def moved(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if item.get("field") != _TEXT:
            return item
        inside = start <= item["start"] and item["end"] <= end
        return {**item, "start": item["start"] - start, "end": item["end"] - start} if inside else None

    return _changed(metadata, moved)


def in_turns(metadata: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
    """Return the metadata of a part of a conversation that consists of the messages of these numbers: terms of other messages leave."""
    numbers = {f"{_MESSAGES}{old}": f"{_MESSAGES}{new}" for new, old in enumerate(kept)}

    def moved(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if not str(item.get("field", "")).startswith(_MESSAGES):
            return item
        field = numbers.get(item["field"])
        return None if field is None else {**item, "field": field}

    return _changed(metadata, moved)


def without_text(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of what a template made of a text: its terms stay, for the conversation is about them, without places in a text that is gone."""

    def moved(item: Mapping[str, Any]) -> Mapping[str, Any] | None:
        return {name: value for name, value in item.items() if name not in ("field", "start", "end")} if item.get("field") == _TEXT else item

    return _changed(metadata, moved)


def _changed(metadata: Mapping[str, Any], moved: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]) -> dict[str, Any]:
    if TERMS not in metadata:
        return dict(metadata)
    terms = [item for item in map(moved, metadata[TERMS]) if item is not None]
    rest = {name: value for name, value in metadata.items() if name != TERMS}
    return {**rest, TERMS: terms} if terms else rest
