"""What the project file says about standard terms."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metier.config import Settings

__all__ = ["StandardizeSettings"]


class StandardizeSettings(Settings):
    """How names of things are brought to their preferred term and code. Digits are never touched."""

    enabled: bool = True
    """Look for terms at all."""
    mode: Literal["annotate", "replace"] = "annotate"
    """`annotate` leaves the text as it is and keeps what was found in the metadata; `replace` also writes the preferred term."""
    pack: bool = True
    """Use the pack's own lexicon."""
    systems: tuple[str, ...] = ()
    """Further lexicons that the pack offers by name (`metier packs check NAME` says which); they are read when first needed."""
    lexicons: tuple[str, ...] = ()
    """Lexicons of your own, CSV or YAML, relative to the project; their names win over the pack's."""
    negation: bool = True
    """Mark mentions that are denied. Without this every mention counts as asserted."""
    units: bool = True
    """Write units in one way after a number (`replace` only); values stay."""
    abbreviations: bool = True
    """Expand an abbreviation of the lexicon where a text uses it first (`replace` only); ambiguous ones stay and are counted."""
    sections: bool = True
    """Note the heading under which a term stands."""
    reach_words: int = Field(default=5, ge=1)
    """Words that a cue of negation reaches (NegEx: five)."""
    reach_characters: int = Field(default=12, ge=1)
    """Han characters that a cue reaches: about five words of two characters and their connectives."""
