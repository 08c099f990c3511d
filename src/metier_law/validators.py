"""Checks of identifiers in court records."""

from __future__ import annotations

__all__ = ["has_digits"]


def has_digits(text: str) -> bool:
    """Return whether a labelled value holds two digits and more, so that it is a number and no word."""
    return sum(char in "0123456789" for char in text) >= 2
