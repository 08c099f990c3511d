"""Small pictures as inline SVG: dots with whiskers, histograms. Colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from metier.charts import WIDTH, frame, line, number, text, ticks

__all__ = ["Row", "histogram", "whiskers"]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a dot-and-whisker picture: (value, low, high) of both sides, and the level of guessing if there is one."""

    label: str
    note: str
    base: tuple[float, float, float]
    tuned: tuple[float, float, float]
    chance: float | None = None


def whiskers(rows: Sequence[Row], *, title: str, span: tuple[float, float] | None = None) -> Markup:
    """Return a dot-and-whisker picture, one line a row: base above, tuned below, a dashed mark where guessing would be."""
    if not rows:
        return Markup("")
    pitch, left, right, top = 54.0, 270.0, WIDTH - 28.0, 10.0
    bottom = top + pitch * len(rows)
    numbers = [value for row in rows for value in (*row.base, *row.tuned) if math.isfinite(value)] or [0.0, 1.0]
    marks = ticks(*(span or (min(numbers), max(numbers))), 5)

    def place(value: float) -> float:
        share = (value - marks[0]) / (marks[-1] - marks[0])
        return left + min(1.0, max(0.0, share)) * (right - left)

    body = []
    for mark in marks:
        body += [line((place(mark), top), (place(mark), bottom), "grid"), text(place(mark), bottom + 18, number(mark), "tick", "middle")]
    for index, row in enumerate(rows):
        middle = top + pitch * (index + 0.5)
        if index:
            body.append(line((0, top + pitch * index), (right, top + pitch * index), "rule"))
        body += [text(0, middle - 3, _cut(row.label), "name"), text(0, middle + 14, _cut(row.note, 40), "tick")]
        if row.chance is not None:
            body.append(line((place(row.chance), middle - 20), (place(row.chance), middle + 20), "chance"))
        for (value, low, high), y, side in ((row.base, middle - 8, "base"), (row.tuned, middle + 8, "tuned")):
            if math.isfinite(low) and math.isfinite(high):
                body.append(line((place(low), y), (place(high), y), f"whisker {side}"))
            if math.isfinite(value):
                body.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5" class="dot {}"/>').format(place(value), y, side))
    return frame(bottom + 28, title, body)


def _cut(text: str, size: int = 30) -> str:
    return text if len(text) <= size else text[: size - 1] + "\u2026"


def histogram(base: Sequence[float], tuned: Sequence[float], *, title: str, x_label: str, bins: int = 16) -> Markup:
    """Return a histogram of both sides, side by side in each bin, on one scale."""
    every = [*base, *tuned]
    if not every:
        return Markup("")
    height, left, right, top, bottom = 200.0, 44.0, WIDTH - 16.0, 10.0, 160.0
    across = ticks(0, max(every), 8)
    width = across[-1] / bins
    counts = [[sum(min(bins - 1, int(value / width)) == index for value in side) for index in range(bins)] for side in (base, tuned)]
    upward = ticks(0, max(max(side) for side in counts), 3)
    scale, pitch = (bottom - top) / upward[-1], (right - left) / bins
    body = []
    for value in upward:
        y = bottom - value * scale
        body += [line((left, y), (right, y), "grid"), text(left - 8, y + 4, number(value), "tick", "end")]
    for value in across:
        body.append(text(left + value / across[-1] * (right - left), bottom + 18, number(value), "tick", "middle"))
    body.append(text((left + right) / 2, height - 4, x_label, "axis", "middle"))
    for offset, (side, name) in enumerate(zip(counts, ("base", "tuned"), strict=True)):
        for index, count in enumerate(side):
            box = (left + pitch * (index + 0.1 + 0.4 * offset), bottom - count * scale, pitch * 0.38, count * scale, name)
            if count:
                body.append(Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1.5" class="bar {}"/>').format(*box))
    return frame(height, title, body)
