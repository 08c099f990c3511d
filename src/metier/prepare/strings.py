"""What a record says as one text. The walk over its strings is that of `metier.records`: what is changed here is what is checked later."""

from __future__ import annotations

from metier.records import Record, strings, with_strings

__all__ = ["content", "strings", "with_strings"]


def content(record: Record) -> str:
    """Return what a record says as one text, for rules on the whole of it."""
    return "\n".join(text for text in strings(record) if text.strip())
