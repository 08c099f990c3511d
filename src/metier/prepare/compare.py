"""The forms in which texts are compared. Folding happens here only; what is stored is never folded."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from metier.digest import digest_of
from metier.records import Message, Record

__all__ = ["bare", "critical", "exact_key", "fold", "parts", "question_key", "searched", "turns"]

_SYSTEM = "system"

_SPACE = re.compile(r"\s+")


@lru_cache(maxsize=1)
def _critical() -> re.Pattern[str]:
    words: Mapping[str, Any] = yaml.safe_load((files("metier.prepare") / "data" / "critical.yaml").read_text(encoding="utf-8"))
    numerals, after = words["numerals"], words["after_numeral"]
    digits = "0-9\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2080-\u2089\u2150-\u215e"
    number = rf"[-+\u2212<>\u2264\u2265\u00b1]?\s?[{digits}]+(?:[.,:/][{digits}]+)*\s?(?:[A-Za-z\u00b5\u03bc%\u2030\u2103\u00b0/]{{1,12}}|[{after}])?"
    numeral = rf"[{numerals}]{{2,}}|[{numerals}](?=[{after}])"
    english = "|".join(re.escape(word) for word in words["en"] if word[0].isalpha() and "'" not in word)
    chinese = "".join(words["zh"])
    return re.compile(rf"{number}|{numeral}|[{chinese}]|(?<![A-Za-z])(?i:{english})(?![A-Za-z])|n['\u2019]t(?![A-Za-z])")


_WIDE = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {"\u3000": " "}
_IS_WIDE = re.compile("[\uff01-\uff5e\u3000]")


def _narrow(text: str) -> str:
    """Return the text with full-width forms of ASCII as ASCII: what NFKC does with them, at a quarter of its time."""
    return _IS_WIDE.sub(lambda found: _WIDE[found[0]], text)


def critical(text: str) -> tuple[str, ...]:
    """Return what two texts have to share to be duplicates: numbers with their units and words that turn a statement round, in order.

    Full-width forms are folded; superscripts are not (10 to the power of 2 is not 102). Units keep their case.
    """
    return tuple(_SPACE.sub("", found) for found in _critical().findall(_narrow(text)))


def fold(text: str) -> str:
    """Return the form for shingles: NFKC (UAX 15), case-folded, runs of white space as one blank. Digits stay."""
    text = _narrow(text)
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def bare(text: str) -> str:
    """Return a text's folded letters and digits alone: what remains when only punctuation and blanks differ."""
    return "".join(character for character in fold(text) if character.isalnum())


def turns(record: Record) -> tuple[tuple[Message, ...], str]:
    """Return the messages before the last learnt one, and that one's content. Raises ValueError if none is learnt."""
    for place in range(len(record.messages) - 1, -1, -1):
        if record.messages[place].learn:
            return record.messages[:place], record.messages[place].content
    raise ValueError(f"record {record.id} has no learnt message")


def parts(record: Record) -> dict[str, str]:
    """Return the parts that are compared each for itself: question and answer, or text, label and each field of the metadata.

    A system message is a part too, but not of the text by which near-duplicates are looked for: it is often the same everywhere.
    """
    found: dict[str, str] = {}
    if record.messages:
        before, answer = turns(record)
        found[_SYSTEM] = "\n".join(message.content for message in before if message.role == "system")
        found["question"] = "\n".join(message.content for message in before if message.role != "system")
        found["answer"] = answer
    found["text"], found["label"] = record.text, record.label or ""
    for name, value in record.metadata.items():
        found[f"metadata.{name}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return {name: text for name, text in found.items() if text.strip()}


def exact_key(record: Record) -> str:
    """Return the digest by which records are exactly the same: every part in NFC with white space collapsed."""
    return digest_of({name: _SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip() for name, text in parts(record).items()})


def question_key(record: Record) -> str | None:
    """Return the digest of what is asked, folded, or None for a record without messages."""
    if not record.messages:
        return None
    before, _ = turns(record)
    return digest_of([[message.role, fold(message.content)] for message in before])


def searched(found: Mapping[str, str]) -> str:
    """Return the folded text by which near-duplicates are looked for, from a record's parts."""
    return fold("\n".join(text for name, text in found.items() if name != _SYSTEM))
