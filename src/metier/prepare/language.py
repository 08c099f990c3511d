"""Which language a text is in, by its letters, where the source does not say."""

from __future__ import annotations

import re

__all__ = ["HAN", "detect", "han_share"]

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Han letters as a part of a character class (Unicode script Han)."""

_HAN = re.compile(f"[{HAN}]")
_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
_KANA = re.compile("[\u3041-\u30ff]")
_LETTER = re.compile(r"[^\W\d_]")


def han_share(text: str) -> float:
    """Return the share of Han letters among the letters of a text (0 for a text without letters)."""
    letters = len(_LETTER.findall(text))
    return len(_HAN.findall(text)) / letters if letters else 0.0


def detect(text: str, *, han: float = 0.15, other: float = 0.5) -> str | None:
    """Return `zh`, `en`, `und` (another script) or None for a text without letters.

    A text is Chinese if at least `han` of its letters are Han: a Han letter says as much as four to six Latin ones, so a
    Chinese sentence with Latin names passes. Kana make it `und`. Latin text counts as English: French is not told apart.
    """
    letters = len(_LETTER.findall(text))
    if not letters:
        return None
    found, kana, latin = len(_HAN.findall(text)), len(_KANA.findall(text)), len(_LATIN.findall(text))
    if letters - found - latin > other * letters or kana > 0.1 * (found + kana + 1):
        return "und"
    return "zh" if found >= han * letters else "en"
