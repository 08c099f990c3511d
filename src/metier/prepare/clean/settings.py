"""What the project file says about cleaning."""

from __future__ import annotations

from typing import Literal

import regex
from pydantic import Field, field_validator

from metier.config import Settings
from metier.packs.matching import compile_pattern

__all__ = ["CleanSettings", "RepeatedSettings"]


class RepeatedSettings(Settings):
    """When a line is a frame of its source. Lines with a number or a negation always stay."""

    share: float = Field(default=0.05, gt=0, le=1)
    """Share of a source's records that hold the line."""
    minimum: int = Field(default=20, ge=2)
    """Records that hold it, at least."""


class CleanSettings(Settings):
    """What is tidied in the text itself. No step changes the value of a number, a unit or a negation."""

    invisible: bool = True
    """Remove control, zero-width and bidirectional-control characters."""
    blanks: bool = True
    """Make runs of blanks one blank and more than one empty line one; strip both ends."""
    mojibake: bool = True
    """Repair text that was decoded with the wrong encoding, where the result is clearly better; sound text is not touched."""
    html: bool = True
    """Remove tags and comments, decode entities; `<sup>2</sup>` becomes a superscript, and a `<` before a number is no tag."""
    boilerplate: bool = True
    """Remove lines of web pages and page frames that say nothing (`data/boilerplate.yaml`, Chinese and English)."""
    boilerplate_lines: tuple[str, ...] = ()
    """Patterns of further lines to remove; each has to match the whole line."""
    repeated: RepeatedSettings | None = None
    """Remove lines that many records of a source begin or end with; needs a pass over all records before."""
    script: Literal["keep", "simplified", "traditional"] = "keep"
    """Convert Chinese between its scripts (OpenCC; needs the extra `zh`)."""
    width: Literal["keep", "half"] = "keep"
    """`half` writes full-width Latin letters and digits, and the signs between them, as ASCII; Chinese punctuation stays."""

    @field_validator("boilerplate_lines")
    @classmethod
    def _compiles(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                compile_pattern(pattern)
            except regex.error as fault:
                raise ValueError(f"the pattern {pattern!r} is not valid: {fault}") from None
        return patterns
