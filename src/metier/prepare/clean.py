"""Tidying of text. What reaches the dataset keeps its letters, digits, width and punctuation.

Full-width forms, superscripts and ligatures are folded only where texts are compared (metier.prepare.compare) or searched
(metier.packs.matching): NFKC would turn 10 to the power of 2 into 102. The text itself gets NFC, which never changes what is read.
"""

from __future__ import annotations

import re
import unicodedata

from metier.prepare.settings import CleanSettings
from metier.prepare.strings import strings, with_strings
from metier.records import Record

__all__ = ["clean", "tidy"]

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Unicode categories Cc and Cf as far as they are invisible in running text; line feed and tab stay.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]")
_BLANKS = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]{2,}")
_LINE_TAIL = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+(?=\n)")
_EMPTY_LINES = re.compile("\n{3,}")


def tidy(text: str, settings: CleanSettings) -> str:
    """Return `text` in NFC with \\n as its only line end, without invisible characters and surplus blanks as `settings` say."""
    text = unicodedata.normalize("NFC", _LINE_ENDS.sub("\n", text))
    if settings.invisible:
        text = _INVISIBLE.sub("", text)
    if settings.blanks:
        text = _EMPTY_LINES.sub("\n\n", _LINE_TAIL.sub("", _BLANKS.sub(" ", text))).strip()
    return text


def clean(record: Record, settings: CleanSettings) -> tuple[Record, bool]:
    """Return the record with every string tidied, and whether anything changed."""
    before = strings(record)
    after = [tidy(text, settings) for text in before]
    return (record, False) if before == after else (with_strings(record, after), True)
