"""How the rules of a pack are applied to text: the one meaning of a pattern, a context window and a bound on length.

Everything works on text whose full-width Latin letters, digits and joints are folded to their ASCII forms. The folding keeps the
number of code points, so offsets found in the folded text hold in the text itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import regex

from metier.config import load_yaml
from metier.errors import Fault, PackError, nearest
from metier.packs.spec import GuardRule, Identifier, QualityRule

__all__ = [
    "TIMEOUT_SECONDS",
    "WIDE",
    "Rule",
    "applies",
    "backtracks",
    "compile_pattern",
    "compile_rule",
    "fold_width",
    "guard_finds",
    "quality_reason",
    "search",
    "slow",
    "words_of",
]

TIMEOUT_SECONDS = 2.0
"""Longest time that one pattern may spend on one text; a pattern that backtracks without end is stopped there."""

_JOINTS = "@.-+_/%"
WIDE = {ord(char) + 0xFEE0: char for char in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" + _JOINTS}
"""Full-width letter, digit or joint -> its ASCII form."""

_HAS_WIDE = regex.compile("[\uff05\uff0b\uff0d-\uff19\uff20-\uff3a\uff3f\uff41-\uff5a]")


def fold_width(text: str) -> str:
    """Return `text` with full-width letters, digits and ``@ . - + _ / %`` as ASCII (Unicode block U+FF00), same length."""
    return text.translate(WIDE) if _HAS_WIDE.search(text) else text


@lru_cache(maxsize=1)
def _lists() -> dict[str, list[str]]:
    folder = Path(__file__).parent / "data"
    lists = {**load_yaml(folder / "lists.yaml").value, **load_yaml(folder / "divisions.yaml").value}
    return {name: words.split() for name, words in lists.items()}


@lru_cache(maxsize=1)
def _gap() -> str:
    gap: str = load_yaml(Path(__file__).parent / "data" / "writing.yaml").value["gap"]
    return gap


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    r"""Compile a pattern once; ``\L<name>`` stands for a list of ``data/lists.yaml``. Raises regex.error for a pattern that is not valid."""
    return regex.compile(pattern, **_lists(), ignore_unused=True) if r"\L<" in pattern else regex.compile(pattern)


def search(pattern: str, text: str) -> bool:
    """Return whether `pattern` is found in `text` (folded). Raises PackError for a pattern that runs out of time."""
    try:
        return compile_pattern(pattern).search(fold_width(text), timeout=TIMEOUT_SECONDS) is not None
    except TimeoutError:
        raise slow(pattern) from None


def slow(pattern: str) -> PackError:
    """Return the error that says that a pattern ran out of time."""
    shown = pattern if len(pattern) <= 60 else pattern[:57] + "..."
    return PackError(Fault(f"the pattern {shown!r} did not finish within {TIMEOUT_SECONDS:g} s", remedy="remove nested repetition from the pattern"))


def applies(languages: tuple[str, ...], language: str | None) -> bool:
    """Return whether a rule for `languages` (empty: all) holds for a text of `language` (None: not known, every rule holds)."""
    return not languages or language is None or language in languages


@dataclass(frozen=True, slots=True)
class Rule:
    """An identifier made ready for search."""

    identifier: Identifier
    pattern: regex.Pattern[str]
    """The whole pattern, a label included: what may be searched for in any text."""
    group: int | str
    """Group of `pattern` and of `after` that is the identifier."""
    after: regex.Pattern[str] | None
    """What has to stand where a label ends; None for an identifier without labels."""
    context: regex.Pattern[str] | None
    validator: Callable[[str], bool] | None
    timed: bool
    """Whether the pattern may backtrack without end, so that it runs against the clock."""


def compile_rule(identifier: Identifier, validators: Mapping[str, Callable[[str], bool]]) -> Rule:
    """Make an identifier ready for search. Raises PackError for a bad pattern, group or validator."""
    begins = [word for name in identifier.writing.begins for word in words_of(name)]
    group = "value" if (identifier.labels or begins) and identifier.group == 0 else identifier.group
    value = f"(?P<value>{identifier.pattern})" if group == "value" else identifier.pattern
    follows = f"{_gap()}{value}(?![0-9A-Za-z])"
    try:
        if begins:
            after, pattern = compile_pattern(value), compile_pattern(f"(?P<whole>{_begin(identifier.writing.begins)}{identifier.pattern})")
        else:
            after = compile_pattern(follows) if identifier.labels else None
            pattern = compile_pattern(f"{_label(identifier.labels)}{follows}" if identifier.labels else identifier.pattern)
    except regex.error as fault:
        raise PackError(Fault(f"the pattern of {identifier.entity} is not valid: {fault}")) from None
    if not _has_group(after or pattern, group):
        raise PackError(Fault(f"the pattern of {identifier.entity} has no group {identifier.group!r}"))
    validator = None
    if identifier.validator is not None:
        validator = validators.get(identifier.validator)
        if validator is None:
            raise PackError(Fault(f"{identifier.entity} names the validator {identifier.validator!r}, which is in no table"))
    context = "|".join(regex.escape(fold_width(word)) for word in identifier.context)
    return Rule(identifier, pattern, group, after, compile_pattern(f"(?i){context}") if context else None, validator, backtracks(identifier.pattern))


def words_of(name: str) -> list[str]:
    """Return the words of a list of ``data/lists.yaml`` or ``data/divisions.yaml``. Raises PackError for a list that does not exist."""
    if name not in _lists():
        raise PackError(Fault(f"there is no list {name!r}", remedy=nearest(name, list(_lists()))))
    return _lists()[name]


def _begin(names: tuple[str, ...]) -> str:
    return "(?:" + "|".join(rf"\L<{name}>" for name in names) + ")"


def _label(labels: tuple[str, ...]) -> str:
    """Return the pattern of a label: one in ASCII stands in any capitals and does not follow a letter."""
    words = sorted((fold_width(word) for word in labels), key=len, reverse=True)
    latin = "|".join(regex.escape(word).replace("\\ ", "[ _]?") for word in words if word.isascii())
    other = "|".join(regex.escape(word) for word in words if not word.isascii())
    both = [f"(?<![0-9A-Za-z])(?i:{latin})"] if latin else []
    return f"(?:{'|'.join([*both, *([other] if other else [])])})"


_PART = regex.compile(r"\\.|\[(?:\\.|[^\]\\])+\]|\{[0-4]\}|(?P<many>(?:[*+]|\{[0-9]*,?[0-9]*\})(?P<mode>[+?]?))|.", regex.DOTALL)


def backtracks(pattern: str) -> bool:
    """Return whether a part that is repeated often holds something of variable length, so that the ways to match it may multiply.

    A possessive repetition (``{2,9}+``) gives nothing back and does not count.
    """
    variable, closed, before = [False], False, ""
    for part in _PART.finditer(pattern):
        text, many = part.group(), part["many"] is not None
        if many and closed and part["mode"] != "+":
            return True
        closed = False
        if text == "(":
            variable.append(False)
        elif text == ")" and len(variable) > 1:
            closed = variable.pop()
            variable[-1] |= closed
        elif many or (text == "?" and before != "("):
            variable[-1] |= many is False or "," in text or text[0] in "*+"
        before = text
    return False


def _has_group(pattern: regex.Pattern[str], group: int | str) -> bool:
    return group in pattern.groupindex if isinstance(group, str) else 0 <= group <= pattern.groups


def quality_reason(rule: QualityRule, text: str) -> str | None:
    """Return why a rule drops `text` (``name:3<20``, ``name:90>80`` or ``name``), or None where the text stays."""
    length = len(text.strip())
    if rule.minimum_characters is not None and length < rule.minimum_characters:
        return f"{rule.name}:{length}<{rule.minimum_characters}"
    if rule.maximum_characters is not None and length > rule.maximum_characters:
        return f"{rule.name}:{length}>{rule.maximum_characters}"
    if rule.pattern is not None and search(rule.pattern, text):
        return rule.name
    return None


def guard_finds(rule: GuardRule, text: str) -> bool:
    """Return whether a guard rule finds its pattern in a question or an answer."""
    return search(rule.pattern, text)
