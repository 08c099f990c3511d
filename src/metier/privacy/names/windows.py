"""Cuts long texts into pieces that a tagger reads at once, at the end of a sentence where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import regex

__all__ = ["windows"]

# Ideographic full stop, full-width exclamation mark, question mark and semicolon; then their ASCII forms and the line break.
_END = regex.compile(r"[\u3002\uff01\uff1f\uff1b\n]+|[.!?;](?=\s)")
# Commas and spaces, the second choice.
_PAUSE = regex.compile(r"[\uff0c\u3001\uff1a,:\s]")


def windows(text: str, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of pieces of at most `size` code points that together cover `text`.

    A piece ends at the last end of a sentence in it, else at the last comma or space of its second half, else in the middle of whatever
    stands there; only then the next piece begins `overlap` code points earlier, so that a name at the cut is whole in one of the two.
    """
    start = 0
    while len(text) - start > size:
        end = _last(_END, text, start, start + size) or _last(_PAUSE, text, start + size // 2, start + size)
        if end is None:
            yield start, start + size
            start += size - overlap
        else:
            yield start, end
            start = end
    if start < len(text):
        yield start, len(text)


def _last(pattern: regex.Pattern[str], text: str, start: int, stop: int) -> int | None:
    found = None
    for match in pattern.finditer(text, start, stop):
        found = match.end()
    return found
