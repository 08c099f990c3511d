"""The texts of a row under named fields: dotted paths, through lists and objects, read and put back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["paths", "texts", "with_texts"]

_WHOLE_NUMBERS = 1e15
"""Below it every whole number of a float is exact."""


def texts(row: dict[str, Any], fields: Sequence[str]) -> list[tuple[str, str]]:
    """Return (place, text) for every text under the fields, in order. A whole number counts as text: a telephone may be stored as one.

    A field `messages.content` goes through every item of a list; a field that ends at an object or a list takes all texts in it.
    """
    return [found for field in fields for found in _found(row, field.split("."), "")]


def with_texts(row: dict[str, Any], fields: Sequence[str], changed: Sequence[str]) -> dict[str, Any]:
    """Return the row with its texts replaced, in the order of `texts`. A number whose text did not change stays a number."""
    rest = iter(changed)
    for field in fields:
        row = _rebuilt(row, field.split("."), rest)
    if next(rest, None) is not None:
        raise ValueError("more texts than the row has")
    return row


def paths(row: dict[str, Any], fields: Sequence[str]) -> set[str]:
    """Return which of the fields the row has."""
    return {field for field in fields if _has(row, field.split("."))}


def _has(value: Any, path: Sequence[str]) -> bool:
    if not path:
        return True
    if isinstance(value, list):
        return any(_has(item, path) for item in value)
    return isinstance(value, dict) and path[0] in value and _has(value[path[0]], path[1:])


def _found(value: Any, path: Sequence[str], place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _found(item, path, f"{place}[{index}]")
    elif isinstance(value, dict):
        for key in [path[0]] if path else sorted(value):
            if key in value:
                yield from _found(value[key], path[1:], f"{place}.{key}" if place else key)
    elif not path and (text := _text(value)) is not None:
        yield place, text


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_NUMBERS:
        return str(int(value))
    return None


def _rebuilt(value: Any, path: Sequence[str], rest: Iterator[str]) -> Any:
    if isinstance(value, list):
        return [_rebuilt(item, path, rest) for item in value]
    if isinstance(value, dict):
        made = dict(value)
        for key in [path[0]] if path else sorted(value):
            if key in value:
                made[key] = _rebuilt(value[key], path[1:], rest)
        return made
    if path or (old := _text(value)) is None:
        return value
    try:
        new = next(rest)
    except StopIteration:
        raise ValueError("fewer texts than the row has") from None
    return value if new == old else new
