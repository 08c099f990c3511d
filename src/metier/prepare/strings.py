"""The strings of a record, wherever they stand: what cleaning and de-identification have to reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from metier.records import Record

__all__ = ["content", "strings", "with_strings"]


def strings(record: Record) -> list[str]:
    """Return every string of a record in a fixed order: text, messages, label, metadata at any depth.

    Whole numbers of the metadata are given as strings too: a telephone number may be stored as a number.
    """
    found = [record.text, *(message.content for message in record.messages)]
    if record.label is not None:
        found.append(record.label)
    found.extend(_inside(dict(record.metadata)))
    return found


def with_strings(record: Record, changed: Sequence[str]) -> Record:
    """Return the record with its strings replaced, in the order of `strings`. Raises ValueError if their number differs."""
    rest = iter(changed)
    try:
        text = next(rest)
        messages = tuple(replace(message, content=next(rest)) for message in record.messages)
        label = None if record.label is None else next(rest)
        metadata = _rebuilt(dict(record.metadata), rest)
    except (StopIteration, RuntimeError):
        raise ValueError("fewer strings than the record has") from None
    if next(rest, None) is not None:
        raise ValueError("more strings than the record has")
    return replace(record, text=text, messages=messages, label=label, metadata=metadata)


def content(record: Record) -> str:
    """Return what a record says as one text, for rules on the whole of it."""
    return "\n".join(text for text in strings(record) if text.strip())


def _inside(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _inside(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)


def _rebuilt(value: Any, rest: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(rest)
    if isinstance(value, int) and not isinstance(value, bool):
        changed = next(rest)
        return value if changed == str(value) else changed
    if isinstance(value, dict):
        return {key: _rebuilt(value[key], rest) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_rebuilt(item, rest) for item in value]
    return value
