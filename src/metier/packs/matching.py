"""How the rules of a pack are applied to text: the one meaning of a pattern, a context window and a bound on length.

Everything works on text whose full-width Latin letters, digits and joints are folded to their ASCII forms. The folding keeps the
number of code points, so offsets found in the folded text hold in the text itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import regex

from metier.config import load_yaml
from metier.errors import Fault, PackError
from metier.packs.spec import GuardRule, Identifier, QualityRule
from metier.records import Span

__all__ = ["TIMEOUT_SECONDS", "Rule", "applies", "compile_pattern", "compile_rule", "find", "fold_width", "guard_finds", "quality_reason", "search"]

TIMEOUT_SECONDS = 2.0
"""Longest time that one pattern may spend on one text; a pattern that backtracks without end is stopped there."""

_JOINTS = "@.-+_/%"
_WIDE = {ord(char) + 0xFEE0: char for char in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" + _JOINTS}
_HAS_WIDE = regex.compile("[\uff05\uff0b\uff0d-\uff19\uff20-\uff3a\uff3f\uff41-\uff5a]")


def fold_width(text: str) -> str:
    """Return `text` with full-width letters, digits and ``@ . - + _ / %`` as ASCII (Unicode block U+FF00), same length."""
    return text.translate(_WIDE) if _HAS_WIDE.search(text) else text


@lru_cache(maxsize=1)
def _lists() -> dict[str, list[str]]:
    document = load_yaml(Path(__file__).parent / "data" / "lists.yaml")
    return {name: words.split() for name, words in document.value.items()}


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    r"""Compile a pattern once; ``\L<name>`` stands for a list of ``data/lists.yaml``. Raises regex.error for a pattern that is not valid."""
    return regex.compile(pattern, **_lists(), ignore_unused=True) if r"\L<" in pattern else regex.compile(pattern)


def search(pattern: str, text: str) -> bool:
    """Return whether `pattern` is found in `text` (folded). Raises PackError for a pattern that runs out of time."""
    try:
        return compile_pattern(pattern).search(fold_width(text), timeout=TIMEOUT_SECONDS) is not None
    except TimeoutError:
        raise _slow(pattern) from None


def _slow(pattern: str) -> PackError:
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
    context: regex.Pattern[str] | None
    validator: Callable[[str], bool] | None


def compile_rule(identifier: Identifier, validators: Mapping[str, Callable[[str], bool]]) -> Rule:
    """Make an identifier ready for search. Raises PackError for a bad pattern, group or validator."""
    try:
        pattern = compile_pattern(identifier.pattern)
    except regex.error as fault:
        raise PackError(Fault(f"the pattern of {identifier.entity} is not valid: {fault}")) from None
    if not _has_group(pattern, identifier.group):
        raise PackError(Fault(f"the pattern of {identifier.entity} has no group {identifier.group!r}"))
    validator = None
    if identifier.validator is not None:
        validator = validators.get(identifier.validator)
        if validator is None:
            raise PackError(Fault(f"{identifier.entity} names the validator {identifier.validator!r}, which is in no table"))
    context = "|".join(regex.escape(fold_width(word)) for word in identifier.context)
    return Rule(identifier, pattern, compile_pattern(f"(?i){context}") if context else None, validator)


def _has_group(pattern: regex.Pattern[str], group: int | str) -> bool:
    return group in pattern.groupindex if isinstance(group, str) else 0 <= group <= pattern.groups


def find(rule: Rule, text: str, folded: str | None = None) -> Iterator[Span]:
    """Yield the stretches of `text` that a rule takes for an identifier, in order.

    `folded` is `fold_width(text)` where the caller has it already. Raises PackError for a pattern that runs out of time.
    """
    identifier = rule.identifier
    folded = fold_width(text) if folded is None else folded
    if identifier.hints and not any(hint in folded for hint in identifier.hints):
        return
    if rule.context is not None and rule.context.search(folded) is None:
        return
    try:
        for match in rule.pattern.finditer(folded, timeout=TIMEOUT_SECONDS):
            start, end = match.span(identifier.group)
            if start >= end:
                continue
            if rule.context is not None and rule.context.search(folded, max(0, match.start() - identifier.window), start) is None:
                continue
            if rule.validator is not None and not rule.validator(folded[start:end]):
                continue
            yield Span(start, end, identifier.entity, text[start:end], identifier.score, identifier.validator or "pattern")
    except TimeoutError:
        raise _slow(identifier.pattern) from None


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
