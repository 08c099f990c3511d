"""Names of people as they are given on a command line, and whether two of them could be taken for one person.

Whoever made a thing must not approve it, so a name that only looks like another one counts as the same: differences of
case, width, accents, blanks, punctuation, word order and letters of other scripts do not make another person. The table of
look-alikes is a choice from those of Unicode's UTS #39 (confusables), with digits that stand for letters added.
"""

from __future__ import annotations

import getpass
import json
import os
import unicodedata
from functools import lru_cache
from importlib import resources

from metier.errors import InputError

__all__ = ["checked_name", "present_user", "same_person", "skeleton"]

_LONGEST = 200
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# What is read alike although no single letter of it is: tried after the letters are folded.
_PAIRS = (("rn", "m"), ("vv", "w"))


@lru_cache(maxsize=1)
def _table() -> dict[int, str]:
    text = resources.files("metier").joinpath("data/lookalikes.json").read_text(encoding="utf-8")
    return str.maketrans(json.loads(text))


def skeleton(name: str) -> tuple[str, ...]:
    """Return the form under which names that could be taken for each other are equal: folded words, sorted."""
    words = "".join(char if char.isalnum() else " " for char in _folded(name)).split()
    return tuple(sorted(words))


def _folded(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
    plain = "".join(char for char in decomposed if unicodedata.category(char) not in {"Mn", "Me", *_HIDDEN})
    folded = unicodedata.normalize("NFC", plain).translate(_table())
    for pair, one in _PAIRS:
        folded = folded.replace(pair, one)
    return folded


def same_person(first: str, second: str) -> bool:
    """Return whether two names could be taken for one person's; also where one only joins the words of the other."""
    one, other = skeleton(first), skeleton(second)
    return one == other or "".join(filter(str.isalnum, _folded(first))) == "".join(filter(str.isalnum, _folded(second)))


def checked_name(name: str, *, key: str) -> str:
    """Return a name without blanks around it. Raises InputError if it is empty, too long or holds what cannot be seen."""
    name = unicodedata.normalize("NFC", name).strip()
    if not skeleton(name):
        raise InputError(f"{key}: a name needs at least one letter or digit\n    -> write the person's full name")
    if len(name) > _LONGEST:
        raise InputError(f"{key}: the name has {len(name)} characters\n    -> at most {_LONGEST}")
    if any(unicodedata.category(char) in _HIDDEN for char in name):
        raise InputError(f"{key}: the name holds characters that cannot be seen\n    -> type it anew, without line ends or control characters")
    return name


def present_user() -> str:
    """Return the name under which this process runs: that of the operating system, or the number of the user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"
