"""Check digits of financial identifiers."""

from __future__ import annotations

__all__ = ["aba", "iban", "six_digits", "three_digits"]

_CONFUSED = str.maketrans("OISB", "0158")


def iban(text: str) -> bool:
    """Return whether `text` is an IBAN: 15 to 34 characters whose rearranged number leaves 1 modulo 97 (ISO 13616-1, ISO 7064 MOD 97-10)."""
    code = "".join(char for char in text if char.isalnum()).replace("l", "1").upper()
    if not 15 <= len(code) <= 34 or not code.isascii() or not code.isalnum():
        return False
    # where scanners misread digits: all of it is digits but the country, or the country and the four letters of a bank
    readings = {code, *(code[:2] + code[2:4].translate(_CONFUSED) + code[4:end] + code[end:].translate(_CONFUSED) for end in (4, 8))}
    return any(int("".join(str(int(char, 36)) for char in read[4:] + read[:4])) % 97 == 1 for read in readings)


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
