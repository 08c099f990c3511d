"""The forms in which texts are compared. Folding happens here only; what is stored is never folded."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from metier.records import Message, Record

__all__ = ["asked_and_answered", "bare", "clauses", "critical", "exact_key", "fold", "is_answer", "parts", "plain", "same_sense", "searched", "turns"]

_SYSTEM = "system"
_DERIVED = "terms"
"""Metadata that a step wrote from the other parts (see metier.prepare.standardize): it says nothing of its own."""
_REMEMBERED = 1000
_CHUNK = frozenset(("document", "chunk"))
_PLACE = frozenset(("document", "chunk", "file", "page", "part", "parts"))
"""Where a chunk of a document stands (see metier.sources.documents): another file or page makes no other text."""
_HEADINGS = frozenset(("title", "section", "article"))
"""What stands above a chunk. It is compared, for the same words under another title may be another thing, but it is not what is searched for:
a title that changed would hide two versions of one text from each other."""
_HEADING = "heading."

_SPACE = re.compile(r"\s+")
_OTHER = re.compile(r"[\W_]+")
_CLAUSE = re.compile(r"[\u3002\uff1b\uff01\uff1f\uff0c\n]|[.,;!?]\s")


@lru_cache(maxsize=1)
def _critical() -> tuple[re.Pattern[str], frozenset[str]]:
    """Return the pattern of what may be critical, every Latin word included, and the Latin words that are."""
    words: Mapping[str, Any] = yaml.safe_load((files("metier.prepare") / "data" / "critical.yaml").read_text(encoding="utf-8"))
    numerals, after = words["numerals"], words["after_numeral"]
    digits = "0-9\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2080-\u2089\u2150-\u215e\u2460-\u249b"
    unit = rf"\s?[A-Za-z\u00b5\u03bc%\u2030\u2103\u00b0/]{{1,12}}|\s?[{after}]+"
    sign = "-+\u2212<>=\u2264\u2265\u00b1~$\u20ac\u00a3\u00a5"
    number = rf"(?:[{sign}]\s?)?[{digits}]+(?:[.,:/][{digits}]+)*(?:{unit})?"
    numeral = rf"[{numerals}]{{2,}}[{after}]?|[{numerals}][{after}]"
    longer = "|".join(re.escape(word) for word in sorted(words["zh"], key=len, reverse=True) if len(word) > 1)
    chinese = "".join(word for word in words["zh"] if len(word) == 1)
    pictures = "\u2600-\u27bf\U0001f300-\U0001faff"
    signs = r"(?<=[A-Za-z(])[-+\u00b1\u2212]+(?![A-Za-z0-9])"
    first = sign + digits + numerals + "".join(word[0] for word in words["zh"]) + pictures + "A-Za-z"  # most places are ruled out by one look
    pattern = rf"(?=[{first}])(?:{number}|{numeral}|{longer}|[{chinese}{pictures}]|[A-Za-z]+(?:['\u2019]t(?![A-Za-z]))?|{signs})"
    return re.compile(pattern), frozenset(words["en"])


_WIDE = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)} | {"\u3000": " "}
_IS_WIDE = re.compile("[\uff01-\uff5e\u3000]")


def _narrow(text: str) -> str:
    """Return the text with full-width forms of ASCII as ASCII: what NFKC does with them, at a quarter of its time."""
    return _IS_WIDE.sub(lambda found: _WIDE[found[0]], text)


def critical(text: str) -> tuple[str, ...]:
    """Return what two texts have to share to be duplicates: numbers with their units and words that turn a statement round, in order.

    Full-width forms are folded; superscripts are not (10 to the power of 2 is not 102). Units keep their case.
    """
    pattern, words = _critical()
    return tuple(_SPACE.sub("", found) for found in pattern.findall(_narrow(text)) if not found[0].isascii() or not found[0].isalpha() or _turns(found, words))


def _turns(word: str, words: frozenset[str]) -> bool:
    word = word.lower()
    return word in words or (len(word) > 2 and word[-2] in "'\u2019")


def clauses(text: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the clauses of a text, in order and as a set: what `same_sense` compares."""
    found = tuple(_CLAUSE.split(text))
    return found, frozenset(found)


def same_sense(left: tuple[tuple[str, ...], frozenset[str]], right: tuple[tuple[str, ...], frozenset[str]]) -> bool:
    """Return whether two similar texts, given as their clauses, have the same critical words.

    Clauses that both have say the same in both and need no reading; the others are compared in their order. So a sentence that moved is no difference.
    """
    (one, one_set), (other, other_set) = left, right
    if len(one) == len(one_set) and len(other) == len(other_set):
        return _read([clause for clause in one if clause not in other_set]) == _read([clause for clause in other if clause not in one_set])
    shared = Counter(one) & Counter(other)
    return _read(_unshared(one, shared)) == _read(_unshared(other, shared))


def _unshared(found: Sequence[str], shared: Counter[str]) -> list[str]:
    """Return the clauses but for as many of each as are shared."""
    rest, own = shared.copy(), []
    for clause in found:
        if rest[clause] > 0:
            rest[clause] -= 1
        else:
            own.append(clause)
    return own


def _read(own: Sequence[str]) -> tuple[str, ...]:
    text = "\n".join(own)
    return _remembered(text) if len(text) < _REMEMBERED else critical(text)


@lru_cache(maxsize=4096)
def _remembered(text: str) -> tuple[str, ...]:
    return critical(text)


def fold(text: str) -> str:
    """Return the form for shingles: NFKC (UAX 15), case-folded, runs of white space as one blank. Digits stay."""
    text = _narrow(text)
    if not unicodedata.is_normalized("NFKC", text):
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def bare(text: str) -> str:
    """Return a text's folded letters and digits alone: what remains when only punctuation and blanks differ."""
    return _OTHER.sub("", fold(text))


def turns(record: Record) -> tuple[tuple[Message, ...], str]:
    """Return the messages before the last learnt one, and that one's content. Raises ValueError if none is learnt."""
    for place in range(len(record.messages) - 1, -1, -1):
        if record.messages[place].learn:
            return record.messages[:place], record.messages[place].content
    raise ValueError(f"record {record.id} has no learnt message")


def parts(record: Record, *, without: str | None = None) -> dict[str, str]:
    """Return the parts that are compared each for itself: question and answer, or text, label and each field of the metadata but `without`.

    A system message and the headings above a chunk of a document are parts too, but not of the text by which near-duplicates are looked for. The
    place of a chunk in its document is no part.
    """
    found: dict[str, str] = {}
    if record.messages:
        before, answer = turns(record)
        found[_SYSTEM] = "\n".join(message.content for message in before if message.role == "system")
        found["question"] = "\n".join(message.content for message in before if message.role != "system")
        found["answer"] = answer
    found["text"], found["label"] = record.text, record.label or ""
    chunk = record.metadata.keys() >= _CHUNK
    for name in sorted(record.metadata):
        if name in (without, _DERIVED) or (chunk and name in _PLACE):
            continue
        value = record.metadata[name]
        key = f"{_HEADING}{name}" if chunk and name in _HEADINGS else f"metadata.{name}"
        found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return {name: text for name, text in found.items() if text and not text.isspace()}


def plain(text: str) -> str:
    """Return a text in NFC with white space collapsed: the form in which content is exactly the same."""
    return " ".join((text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)).split())


def exact_key(found: Mapping[str, str]) -> bytes:
    """Return the digest by which records are exactly the same, from a record's parts: 16 bytes of the SHA-256 of every part's name and plain form."""
    return _digest([item for name, text in found.items() for item in (name, plain(text))])


def _digest(items: Sequence[str]) -> bytes:
    """Return 16 bytes of the SHA-256 of the items, each with its length before it, so that no two lists give the same bytes."""
    return hashlib.sha256("".join(f"{len(item)}:{item}" for item in items).encode("utf-8", "surrogatepass")).digest()[:16]


def is_answer(name: str, answers: Collection[str]) -> bool:
    """Return whether a part answers: the last learnt message, the label, or a field of the metadata that `answers` names."""
    return name in ("answer", "label") or (name.startswith("metadata.") and name.removeprefix("metadata.") in answers)


def asked_and_answered(found: Mapping[str, str], answers: Collection[str]) -> tuple[bytes, bytes] | None:
    """Return the digest of what is asked and of what is answered, both folded, or None where a record holds no answer or nothing else."""
    given = {name for name in found if is_answer(name, answers)}
    if not given or len(given) == len(found):
        return None
    asked = [item for name in sorted(found.keys() - given) for item in (name, fold(found[name]))]
    return _digest(asked), _digest([item for name in sorted(given) for item in (name, fold(found[name]))])


def searched(found: Mapping[str, str]) -> str:
    """Return the text by which near-duplicates are looked for, from a record's parts; it is folded when it is cut into shingles."""
    return "\n".join(text for name, text in found.items() if name != _SYSTEM and not name.startswith(_HEADING))
