"""Which mentions are denied: cues and how far they reach (NegEx; Chapman et al., J Biomed Inform 34, 2001), in Chinese and English."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import regex

from metier.config import Settings, load_yaml, parse
from metier.prepare.standardize.lexicon import Match, fold

__all__ = ["Cues", "denied", "load_cues"]

_STOP = regex.compile(r"[;!?\n\u3002\uff1b\uff01\uff1f]|\.(?=\s|$)")
_COMMA = regex.compile(r"[,\uff0c]")
_LIST = regex.compile(r"[\s,\uff0c\u3001/]|and|or|nor|\u548c|\u53ca|\u6216|\u4e0e|\u4ee5\u53ca|\u7b49|\u75c5\u53f2|\u53f2")
_WORD = regex.compile(r"[[\p{L}\p{M}\p{N}]--[\p{Han}]]+", regex.V1)
_HAN = regex.compile(r"\p{Han}")


class Cues(Settings):
    """Words that deny a mention; the file lies beside this module, one list a role."""

    before: tuple[str, ...]
    """Deny what follows them in the same clause."""
    before_list: tuple[str, ...]
    """Deny what follows them, over the commas of a list too."""
    before_next: tuple[str, ...]
    """Deny only what follows at once."""
    after: tuple[str, ...]
    """Deny what stands before them in the same clause."""
    not_negation: tuple[str, ...]
    """Look like a cue and are none."""
    ends_scope: tuple[str, ...]
    """End the reach of a cue, as the end of a sentence does."""


@lru_cache(maxsize=1)
def load_cues() -> Cues:
    """Return the cues that ship with Metier."""
    return parse(load_yaml(Path(__file__).parent / "data" / "negation.yaml"), Cues)


@lru_cache(maxsize=1)
def _pattern() -> regex.Pattern[str]:
    """Return one pattern for all cues: the longest wins where several begin, and each is in the group of its roles."""
    cues = load_cues()
    roles: dict[str, list[str]] = {}
    for role in Cues.model_fields:
        for cue in getattr(cues, role):
            roles.setdefault(cue, []).append(role)
    branches = []
    for cue in sorted(roles, key=len, reverse=True):
        body = regex.escape(cue)
        latin = cue[0].isascii()
        branches.append(rf"(?<![a-z]){body}(?![a-z])" if latin else body)
    return regex.compile("|".join(branches))


@lru_cache(maxsize=1)
def _roles() -> dict[str, frozenset[str]]:
    cues = load_cues()
    found: dict[str, set[str]] = {}
    for role in Cues.model_fields:
        for cue in getattr(cues, role):
            found.setdefault(cue, set()).add(role)
    return {cue: frozenset(roles) for cue, roles in found.items()}


def denied(text: str, matches: Sequence[Match], *, words: int = 5, characters: int = 12) -> list[bool]:
    """Return for each match, in order of place, whether it is denied.

    A cue reaches `words` words or `characters` Han characters within its clause. What a list goes on with after a denied
    mention is denied too. A cue inside a mention is part of its name.
    """
    if not matches:
        return []
    folded = fold(text)
    inside = {place for match in matches for place in range(match.start, match.end)}
    cues = [(found.start(), found.end(), _roles()[found[0]]) for found in _pattern().finditer(folded) if found.start() not in inside]
    if not cues:
        return [False] * len(matches)
    verdicts: list[bool] = []
    lists: list[bool] = []
    for number, match in enumerate(matches):
        verdict, goes_on = _by_cue(folded, match, cues, words, characters)
        if not verdict and number and verdicts[-1]:
            gap = folded[matches[number - 1].end : match.start]
            if _is_list(gap, commas=lists[-1]):
                verdict, goes_on = True, lists[-1]
        verdicts.append(verdict)
        lists.append(goes_on)
    return verdicts


def _by_cue(folded: str, match: Match, cues: Sequence[tuple[int, int, frozenset[str]]], words: int, characters: int) -> tuple[bool, bool]:
    """Return whether a cue reaches the match, and whether it is one that goes on over commas."""
    for _, end, roles in reversed(cues):
        if end > match.start:
            continue
        if "ends_scope" in roles or "not_negation" in roles:
            break
        gap = folded[end : match.start]
        if "before_next" in roles and not roles & {"before", "before_list"}:
            if not gap.strip():
                return True, False
            continue
        if roles & {"before", "before_list"}:
            return _reaches(gap, words, characters), "before_list" in roles
    for start, _, roles in cues:
        if start < match.end:
            continue
        if "after" in roles:
            return _reaches(folded[match.end : start], words, characters), False
        break
    return False, False


def _reaches(gap: str, words: int, characters: int) -> bool:
    if _STOP.search(gap) or _COMMA.search(gap):
        return False
    return len(_WORD.findall(gap)) <= words and len(_HAN.findall(gap)) <= characters


def _is_list(gap: str, *, commas: bool) -> bool:
    if _STOP.search(gap) or (not commas and _COMMA.search(gap)):
        return False
    return not _LIST.sub("", gap)
