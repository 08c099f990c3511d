"""Check digits of financial identifiers."""

from __future__ import annotations

__all__ = ["iban"]


def iban(text: str) -> bool:
    """Return whether `text` is an IBAN: 15 to 34 characters whose rearranged number leaves 1 modulo 97 (ISO 13616-1, ISO 7064 MOD 97-10)."""
    code = text.replace(" ", "").upper()
    if not 15 <= len(code) <= 34 or not code.isascii() or not code.isalnum():
        return False
    return int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1
