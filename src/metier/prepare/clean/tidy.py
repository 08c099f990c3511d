"""Tidying of text. What reaches the dataset keeps its letters, digits, width and punctuation, unless the settings say otherwise.

Superscripts and ligatures are folded only where texts are compared (metier.prepare.compare) or searched (metier.packs.matching):
NFKC would turn 10 to the power of 2 into 102. The text itself gets NFC, which never changes what is read.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from typing import Any

from metier.errors import MissingExtra
from metier.prepare.clean.boilerplate import Boilerplate, without_lines
from metier.prepare.clean.encoding import repair_encoding
from metier.prepare.clean.markup import strip_markup
from metier.prepare.clean.settings import CleanSettings
from metier.prepare.clean.width import narrow
from metier.prepare.strings import strings, with_strings
from metier.records import Record

__all__ = ["clean", "tidy"]

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Unicode categories Cc and Cf as far as they are invisible in running text; line feed and tab stay.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]")
_BLANKS = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]{2,}")
_LINE_TAIL = re.compile("[ \t\u00a0\u2000-\u200a\u202f\u205f\u3000]+(?=\n)")
_EMPTY_LINES = re.compile("\n{3,}")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
_ROUNDS = 8
"""Layers of wrong decoding or escaping that are undone; each makes a text shorter, so that few are ever needed."""


def tidy(text: str, settings: CleanSettings, repeated: Boilerplate | None = None, *, source: str = "") -> str:
    """Return `text` in NFC with \\n as its only line end, cleaned as `settings` say; doing it twice changes nothing more.

    `repeated` are the lines that the sources repeat, `source` the URI of the text's own. Raises MissingExtra if a conversion
    of script is asked for and OpenCC is not installed, InputError for a pattern of the settings that takes too long.
    """
    return _tidied(text, settings, repeated, source)[0]


def clean(record: Record, settings: CleanSettings, repeated: Boilerplate | None = None) -> tuple[Record, tuple[str, ...]]:
    """Return the record with every string tidied, and what was done, as `clean:WHAT` or `clean:boilerplate=LINES`."""
    before, after = strings(record), []
    done: Counter[str] = Counter()
    source = record.source.uri if record.source else ""
    for text in before:
        tidied, counts = _tidied(text, settings, repeated, source)
        after.append(tidied)
        done.update(counts)
    if before == after:
        return record, ()
    notes = tuple(f"clean:{what}={count}" if what == "boilerplate" else f"clean:{what}" for what, count in sorted(done.items()))
    return with_strings(record, after), notes


def _tidied(text: str, settings: CleanSettings, repeated: Boilerplate | None, source: str) -> tuple[str, Counter[str]]:
    done: Counter[str] = Counter()
    for _ in range(_ROUNDS):
        before = text
        text = _readable(text, settings, done)
        if settings.blanks:
            text = _note(done, "blanks", text, _without_blanks(text))
        if text == before:
            break
    if settings.script != "keep" and _HAN.search(text) is not None:
        text = _note(done, "script", text, _converter(settings.script).convert(text))
    if settings.blanks:
        text = _note(done, "blanks", text, _without_blanks(text))
    text, lines = without_lines(text, settings, repeated, source)
    if lines:
        done["boilerplate"] += lines
        text = _without_blanks(text) if settings.blanks else text
    return text, +done


def _without_blanks(text: str) -> str:
    return _EMPTY_LINES.sub("\n\n", _LINE_TAIL.sub("", _BLANKS.sub(" ", text))).strip()


def _readable(text: str, settings: CleanSettings, done: Counter[str]) -> str:
    """One round over what may uncover more of its kind: encoding, line ends, invisible characters, markup, width."""
    if settings.mojibake:
        text = _note(done, "mojibake", text, repair_encoding(text))
    text = _note(done, "unicode", text, unicodedata.normalize("NFC", _LINE_ENDS.sub("\n", text)))
    if settings.invisible:
        text = _note(done, "invisible", text, _INVISIBLE.sub("", text))
    if settings.html:
        text = _note(done, "html", text, strip_markup(text))
    return _note(done, "width", text, narrow(text)) if settings.width == "half" else text


def _note(done: Counter[str], what: str, before: str, after: str) -> str:
    if after != before:
        done[what] += 1
    return after


@lru_cache(maxsize=2)
def _converter(script: str) -> Any:
    try:
        from opencc import OpenCC
    except ImportError:
        raise MissingExtra("opencc", "zh", "converting between simplified and traditional Chinese") from None
    return OpenCC("t2s" if script == "simplified" else "s2t")
