"""Pictures of a sweep as inline SVG; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from markupsafe import Markup

from metier.charts import WIDTH, Point, frame, line, number, rectangle, text, ticks
from metier.training.sweep.quantity import Quantity

__all__ = ["curve_picture", "importance_picture", "trials_picture"]

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 268.0, 64.0, WIDTH - 16.0, 22.0, 220.0
_FAR = 6.0
"""Values this many times as far above the best as the median is are drawn at the upper edge, with their figure: one of them would hide the others."""
_FEW = 24
"""Places across up to which each is named."""


def _upward(values: Sequence[float]) -> tuple[Callable[[float], float], list[Markup]]:
    """Return where a value stands, and the marks of the axis."""
    marks = ticks(min(values), max(values), 4)

    def place(value: float) -> float:
        return _BOTTOM - (value - marks[0]) / (marks[-1] - marks[0]) * (_BOTTOM - _TOP)

    drawn = []
    for value in marks:
        drawn += [line((_LEFT, place(value)), (_RIGHT, place(value)), "grid"), text(_LEFT - 8, place(value) + 4, number(value), "tick", "end")]
    return place, drawn


def _edge(values: Sequence[float], by: Quantity) -> float:
    """Return the highest value that is drawn in its place. Scores of which more is better do not fall without end, as losses rise."""
    best, middle, most = min(values), median(values), max(values)
    return min(most, best + _FAR * (middle - best)) if middle > best and not by.higher_is_better else most


def _dot(point: Point, kind: str, beyond: float | None = None) -> Markup:
    """Return a dot; `beyond` is the figure of one that belongs further up."""
    told = Markup("") if beyond is None else text(point[0], point[1] - 9, f"\u2191 {beyond:.3g}", "tick", "middle")
    return told + Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5" class="dot {}"/>').format(*point, kind)


def trials_picture(rows: Sequence[Mapping[str, Any]], recommended: int | None, by: Quantity) -> Markup:
    """Return what each trial came to and the best so far: full dots for complete trials, hollow ones for those that were given up."""
    shown = [row for row in rows if row["value"] is not None and math.isfinite(row["value"])]
    if not shown:
        return Markup("")
    edge = _edge([row["value"] for row in shown], by)
    place, body = _upward([min(row["value"], edge) for row in shown])
    pitch = (_RIGHT - _LEFT) / max(1, len(rows))
    every = math.ceil(len(rows) / _FEW)

    def across(row: Mapping[str, Any]) -> float:
        return _LEFT + pitch * (float(row["number"]) + 0.5)

    body += [text(across(row), _BOTTOM + 18, str(row["number"]), "tick", "middle") for row in rows if row["number"] % every == 0]
    best, path = by.cost(math.inf), list[str]()
    for row in shown:
        if row["state"] == "complete" and by.cost(row["value"]) < by.cost(best):
            path += [f"{across(row):.1f},{place(best):.1f}"] if path else []
            best = min(row["value"], edge)
            path.append(f"{across(row):.1f},{place(best):.1f}")
    if path:
        path.append(f"{_RIGHT:.1f},{place(best):.1f}")
        body.append(Markup('<polyline points="{}" class="curve best"/>').format(" ".join(path)))
    for row in shown:
        kind, beyond = "chosen" if row["number"] == recommended else row["state"], row["value"] if row["value"] > edge else None
        body.append(_dot((across(row), place(min(row["value"], edge))), kind, beyond))
    body.append(text((_LEFT + _RIGHT) / 2, _HEIGHT - 6, "trial", "axis", "middle"))
    return frame(_HEIGHT, f"{by.name} of each trial", body)


def curve_picture(curve: Sequence[Mapping[str, Any]], limit: float | None, *, label: str, by: Quantity) -> Markup:
    """Return the best value of each size with one standard error either way, and the line up to which others are as good as the best."""
    if not curve:
        return Markup("")
    spread = [item["standard_error"] or 0.0 for item in curve]
    edge = _edge([item["value"] for item in curve], by)
    values = [min(item["value"], edge) for item in curve]
    bounds = [value + sign * error for value, error in zip(values, spread, strict=True) for sign in (-1, 1)]
    place, body = _upward([*bounds, *([] if limit is None else [limit])])
    pitch = (_RIGHT - _LEFT) / len(curve)
    points = [(_LEFT + pitch * (index + 0.5), place(value)) for index, value in enumerate(values)]
    sign = "-" if by.higher_is_better else "+"
    if limit is not None:
        body += [line((_LEFT, place(limit)), (_RIGHT, place(limit)), "limit"), text(_RIGHT, place(limit) - 6, f"best {sign} one standard error", "tick", "end")]
    body.append(Markup('<polyline points="{}" class="curve"/>').format(" ".join(f"{x:.1f},{y:.1f}" for x, y in points)))
    chosen = next((item for item in curve if item["within"]), None)
    for item, error, (x, y) in zip(curve, spread, points, strict=True):
        beyond = item["value"] if item["value"] > edge else None
        if beyond is None:
            body.append(line((x, place(item["value"] - error)), (x, place(item["value"] + error)), "whisker"))
        body.append(_dot((x, y), "chosen" if item is chosen else "complete", beyond))
        body.append(text(x, _BOTTOM + 18, f"{item['size']:g}", "tick", "middle"))
    body.append(text((_LEFT + _RIGHT) / 2, _HEIGHT - 6, label, "axis", "middle"))
    return frame(_HEIGHT, f"{label} and {by.name}", body)


def importance_picture(shares: Mapping[str, float]) -> Markup:
    """Return a bar for each searched key."""
    if not shares:
        return Markup("")
    left, pitch = 260.0, 28.0
    scale = (WIDTH - 90.0 - left) / max([*shares.values(), 1e-9])
    body = []
    for index, (key, share) in enumerate(shares.items()):
        y = pitch * index
        body += [text(left - 10, y + 18, key, "name", "end"), rectangle(left, y + 4, max(1.0, share * scale), pitch - 10, "bar")]
        body.append(text(left + max(1.0, share * scale) + 8, y + 18, f"{share:.2f}", "tick"))
    return frame(pitch * len(shares) + 6, "importance of each setting", body)
