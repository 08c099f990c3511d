"""Parts of small pictures as SVG, shared by the rooms that draw: marks of an axis, text, lines, the frame, and the picture of lines that several of them need.

Nothing here knows a colour: a picture's style classes are given their looks by the page around it, or by a style sheet inside the frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

__all__ = ["WIDTH", "Point", "frame", "line", "lines", "number", "rectangle", "text", "ticks"]

WIDTH = 980
"""Width of every picture in its own units; the page scales it."""

Point = tuple[float, float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round values that cover low..high: steps of 1, 2 or 5 times a power of ten, about `count` of them."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def text(x: float, y: float, content: str, kind: str, anchor: str = "start") -> Markup:
    """Return a line of text at a point; `kind` is its style class, `anchor` says which end the point is."""
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}" text-anchor="{}">{}</text>').format(x, y, kind, anchor, content)


def line(start: Point, end: Point, kind: str) -> Markup:
    """Return a straight line."""
    return Markup('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" class="{}"/>').format(*start, *end, kind)


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """Return a bar with slightly rounded corners."""
    return Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="1.5" class="{}"/>').format(x, y, width, height, kind)


def frame(height: float, title: str, body: Sequence[Markup], *, style: Markup | None = None) -> Markup:
    """Return the whole picture; `style` is a style sheet of its own, for pictures that stand in no page."""
    sheet = Markup("<style>{}</style>").format(style) if style else Markup("")
    head = Markup('<svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">').format(WIDTH, height, title)
    return head + sheet + Markup("").join(body) + Markup("</svg>")


def number(value: float) -> str:
    """Return a number for an axis."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}"


def lines(series: Mapping[str, Sequence[Point]], *, title: str, x_label: str) -> Markup:
    """Return a line picture; each series is drawn in the style class of its name. Points that are no numbers are left out."""
    shown = {name: [point for point in points if all(map(math.isfinite, point))] for name, points in series.items()}
    every = [point for points in shown.values() for point in points]
    if not every:
        return Markup("")
    height, left, right, top, bottom = 260.0, 52.0, WIDTH - 16.0, 14.0, 222.0
    across = ticks(min(x for x, _ in every), max(x for x, _ in every), 6)
    upward = ticks(min(y for _, y in every), max(y for _, y in every), 4)

    def place(point: Point) -> Point:
        x = left + (point[0] - across[0]) / (across[-1] - across[0]) * (right - left)
        return x, bottom - (point[1] - upward[0]) / (upward[-1] - upward[0]) * (bottom - top)

    body = []
    for value in upward:
        _, y = place((across[0], value))
        body += [line((left, y), (right, y), "grid"), text(left - 8, y + 4, number(value), "tick", "end")]
    for value in across:
        x, _ = place((value, upward[0]))
        body.append(text(x, bottom + 18, number(value), "tick", "middle"))
    body.append(text((left + right) / 2, height - 4, x_label, "axis", "middle"))
    for name, points in shown.items():
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))
        if len(points) > 1:
            body.append(Markup('<polyline points="{}" class="curve {}"/>').format(path, name))
        if len(points) <= 30:
            body += [Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.6" class="dot {}"/>').format(*place(point), name) for point in points]
    return frame(height, title, body)
