"""Units written in one way. The number before a unit, and so the value, is never touched."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import regex

from metier.config import load_yaml

__all__ = ["write_units"]


@lru_cache(maxsize=1)
def _table() -> tuple[dict[str, str], dict[str, str], regex.Pattern[str]]:
    data = load_yaml(Path(__file__).parent / "data" / "units.yaml").value
    above = {spelling: unit for unit, spellings in data["units"].items() for spelling in (unit, *spellings)}
    below = above | {spelling: unit for unit, spellings in data["below"].items() for spelling in (unit, *spellings)}

    def either(spellings: dict[str, str]) -> str:
        return "|".join(regex.escape(spelling) for spelling in sorted(spellings, key=len, reverse=True))

    pattern = rf"(?<=[0-9\uff10-\uff19])(?P<blank>[ \u00a0]?)(?P<unit>{either(above)})(?:(?P<line>[/\uff0f])(?P<below>{either(below)}))?(?![A-Za-z])"
    return above, below, regex.compile(pattern)


def write_units(text: str) -> tuple[str, int]:
    """Return `text` with the spellings of `data/units.yaml` after a number as their unit, and how many changed.

    140 mm of mercury in Chinese becomes 140mmHg, 5 milligrams 5 mg; no digit is touched and nothing converted. A unit that is
    not in the table stays, and so does every fraction whose lower part is not.
    """
    above, below, pattern = _table()
    changed = 0

    def written(found: regex.Match[str]) -> str:
        nonlocal changed
        unit = above[found["unit"]]
        if found["below"] is not None:
            unit += "/" + below[found["below"]]
        elif text[found.end() : found.end() + 1] in ("/", "\uff0f"):
            return str(found[0])
        out = f"{found['blank']}{unit}"
        changed += out != found[0]
        return out

    rewritten: str = pattern.sub(written, text)
    return rewritten, changed
