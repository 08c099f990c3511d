"""The classifications that pip packages carry, as lexicons: WHO's ICD-10 and the US ICD-10-CM, in English.

Both are read when a project asks for them (`standardize: {systems: [icd-10-cm]}`), not before. Titles that no one writes in a text
(`other`, `unspecified`, `not elsewhere classified`) are left out; inclusion terms are the names that people use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import regex

from metier.errors import MissingExtra
from metier.packs import Term

__all__ = ["icd10", "icd10_cm"]

_BOOKKEEPING = regex.compile(
    r"(?<![a-z])(?:other|unspecified|classified|elsewhere|encounter|nos|nec|status|without|not|sequela|subsequent)(?![a-z])|[\[\]]", regex.IGNORECASE
)
_LONGEST = 80
_SHORTEST = 4


def icd10_cm() -> Iterator[Term]:
    """Yield the categories and codes of ICD-10-CM with their inclusion terms (package simple-icd-10-cm). Raises MissingExtra without it."""
    codes = _package("simple_icd_10_cm", "simple-icd-10-cm")
    return _terms(codes, "ICD-10-CM", codes.get_inclusion_term)


def icd10() -> Iterator[Term]:
    """Yield the categories and codes of WHO's ICD-10 by their titles (package simple-icd-10). Raises MissingExtra without it."""
    codes = _package("simple_icd_10", "simple-icd-10")
    return _terms(codes, "ICD-10", lambda code: ())


def _package(module: str, distribution: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtra(distribution, "demo", "the classification as a lexicon") from None


def _terms(codes: Any, system: str, inclusions: Any) -> Iterator[Term]:
    """Yield one term a code, shorter codes first, each name at its first code: a category's name beats that of its parts."""
    taken: set[str] = set()
    for code in sorted((code for code in codes.get_all_codes() if codes.is_category(code) or codes.is_subcategory(code)), key=lambda code: (len(code), code)):
        title = codes.get_description(code)
        names = [name for name in _written((title, *inclusions(code))) if name.lower() not in taken]
        taken.update(name.lower() for name in names)
        if names:
            yield Term(code=code, system=system, preferred={"en": names[0]}, variants=tuple(names[1:]))


def _written(names: Iterable[str]) -> Iterator[str]:
    """Yield the names that stand in texts, without what brackets add at their end."""
    for name in names:
        bare = regex.sub(r"\s*\([^()]*\)$", "", name).strip()
        if _SHORTEST <= len(bare) <= _LONGEST and _BOOKKEEPING.search(bare) is None:
            yield bare
