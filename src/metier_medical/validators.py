"""Check digits of identifiers in records of care."""

from __future__ import annotations

__all__ = ["dea", "has_digits"]


def has_digits(text: str) -> bool:
    """Return whether a labelled value holds digits enough to be a number and no word: two, and one for each four characters."""
    digits = sum(char in "0123456789" for char in text)
    return digits >= 2 and digits * 4 >= sum(char.isalnum() for char in text)


def dea(text: str) -> bool:
    """Return whether two letters and seven digits are a registration number of the DEA: the last digit checks the six before it (21 CFR 1301)."""
    digits = [int(char) for char in text[2:] if char in "0123456789"]
    digits = digits[-7:]
    if len(digits) != 7 or len(set(digits)) == 1:
        return False
    return (sum(digits[0:6:2]) + 2 * sum(digits[1:6:2])) % 10 == digits[6]
