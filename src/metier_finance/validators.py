"""Check digits of financial identifiers."""

from __future__ import annotations

__all__ = ["aba", "six_digits", "three_digits"]


def aba(text: str) -> bool:
    """Return whether nine digits are a US routing number: weights 3, 7, 1, and a prefix that the Federal Reserve gives out (ABA Key to Routing Numbers)."""
    digits = [int(char) for char in text if char in "0123456789"]
    prefix = digits[0] * 10 + digits[1] if len(digits) == 9 else 99
    known = prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80
    return known and sum(digit * weight for digit, weight in zip(digits, (3, 7, 1) * 3, strict=True)) % 10 == 0


def three_digits(text: str) -> bool:
    """Return whether a labelled value holds three digits and more, so that it is a number and no word."""
    return sum(char in "0123456789" for char in text) >= 3


def six_digits(text: str) -> bool:
    """Return whether a labelled value holds six digits and more."""
    return sum(char in "0123456789" for char in text) >= 6
