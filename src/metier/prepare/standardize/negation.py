"""Which mentions are denied: cues and how far they reach (NegEx; Chapman et al., J Biomed Inform 34, 2001), in Chinese and English."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import regex

from metier.config import Settings, load_yaml, parse
from metier.packs.spec import Term
from metier.prepare.standardize.lexicon import Lexicon, Match, compile_lexicon, fold

__all__ = ["Cues", "denied", "load_cues"]

_STOP = regex.compile(r"[;!?\n\u3002\uff1b\uff01\uff1f]|\.(?=\s|$)")
_COMMA = regex.compile(r"[,\uff0c]")
_LIST = regex.compile(r"[\s,\uff0c\u3001/]|and|or|nor|\u548c|\u53ca|\u6216|\u4e0e|\u4ee5\u53ca|\u7b49|\u75c5\u53f2|\u53f2")
_WORD = regex.compile(r"[[\p{L}\p{M}\p{N}]--[\p{Han}]]+", regex.V1)
_HAN = regex.compile(r"\p{Han}")
_FAR = 200
"""Characters beyond which no gap is looked into, whatever it holds: longer than five words of any text."""


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


@dataclass(frozen=True, slots=True)
class _Cue:
    """One cue in a text: its place and its roles."""

    start: int
    end: int
    roles: frozenset[str]


@lru_cache(maxsize=1)
def _cues() -> Lexicon:
    """Return the cues as a lexicon whose codes are their roles: the search and the borders are the same as for terms."""
    cues = load_cues()
    terms = (Term(code=role, system="cue", preferred={"": cue}) for role in Cues.model_fields for cue in getattr(cues, role))
    return compile_lexicon([terms], ignore=())


def _found(text: str, folded: str, matches: Sequence[Match]) -> list[_Cue]:
    """Return the cues of a text in order; one that begins inside a mention is a part of its name."""
    found, at = [], 0
    for cue in _cues().matches(text, folded):
        while at < len(matches) and matches[at].end <= cue.start:
            at += 1
        if at == len(matches) or cue.start < matches[at].start:
            found.append(_Cue(cue.start, cue.end, frozenset(concept.code for concept in cue.concepts)))
    return found


def denied(text: str, matches: Sequence[Match], *, words: int = 5, characters: int = 12, folded: str | None = None) -> list[bool]:
    """Return for each match, in order of place, whether it is denied.

    A cue reaches `words` words or `characters` Han characters within its clause. What a list goes on with after a denied
    mention is denied too. A cue inside a mention is part of its name.
    """
    if not matches:
        return []
    folded = fold(text) if folded is None else folded
    cues = _found(text, folded, matches)
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


def _by_cue(folded: str, match: Match, cues: Sequence[_Cue], words: int, characters: int) -> tuple[bool, bool]:
    """Return whether a cue reaches the match, and whether it is one that goes on over commas."""
    place = bisect_right(cues, match.start, key=lambda cue: cue.start)
    for cue in reversed(cues[:place]):
        if cue.end > match.start:
            continue
        gap = folded[cue.end : match.start]
        if cue.roles & {"ends_scope", "not_negation"} or not _near(gap):
            break
        if cue.roles & {"before", "before_list"}:
            return _reaches(gap, words, characters), "before_list" in cue.roles
        if "before_next" in cue.roles and not gap.strip():
            return True, False
    for cue in cues[place : place + 1]:
        if "after" in cue.roles and cue.start >= match.end:
            return _reaches(folded[match.end : cue.start], words, characters), False
    return False, False


def _near(gap: str) -> bool:
    """Return whether a gap is short enough to be worth a look; a cue further away reaches nothing."""
    return len(gap) <= _FAR and _STOP.search(gap) is None


def _reaches(gap: str, words: int, characters: int) -> bool:
    if _STOP.search(gap) or _COMMA.search(gap):
        return False
    return len(_WORD.findall(gap)) <= words and len(_HAN.findall(gap)) <= characters


def _is_list(gap: str, *, commas: bool) -> bool:
    if _STOP.search(gap) or (not commas and _COMMA.search(gap)):
        return False
    return not _LIST.sub("", gap)
