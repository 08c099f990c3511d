"""Tables with merged cells as plain rows."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["grid"]


def grid(rows: Sequence[Sequence[tuple[str, int, int]]]) -> list[list[str]]:
    """Return rows of (text, columns, rows) cells as rows of equal length.

    A cell that spans rows stands in each of them, so that every row can be read alone; one that spans columns stands in the first and leaves the
    others empty, so that no text is doubled in a row.
    """
    found: list[list[str]] = []
    below: dict[int, tuple[str, int]] = {}
    for row in rows:
        line: list[str] = []
        following: dict[int, tuple[str, int]] = {column: (text, left - 1) for column, (text, left) in below.items() if left > 1}
        for text, wide, high in row:
            while len(line) in below:
                line.append(below[len(line)][0])
            for offset in range(wide):
                if high > 1:
                    following[len(line)] = (text if offset == 0 else "", high - 1)
                line.append(text if offset == 0 else "")
        while len(line) in below:
            line.append(below[len(line)][0])
        below = following
        found.append(line)
    width = max(map(len, found), default=0)
    return [line + [""] * (width - len(line)) for line in found]
