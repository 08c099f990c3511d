"""A page that shows a training while it runs: one HTML file that draws itself anew, with no script and no request to anywhere."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from metier.charts import lines
from metier.store import write_atomically

__all__ = ["Page"]

_SECONDS = 5.0
_SHARE = 50
_POINTS = 400
_COLOURS = 6
_ALARMS = 8


class Page:
    """Writes the page at most every few seconds, and once when training ends."""

    def __init__(self, file: Path, metrics: Path, *, total: int) -> None:
        self.file = file
        self._metrics, self._total = metrics, total
        self._due = 0.0

    def update(self, alarms: Sequence[str], *, ended: bool = False) -> None:
        """Draw the page if it is time to."""
        began = time.monotonic()
        if not ended and began < self._due:
            return
        rows = [json.loads(line) for line in self._metrics.read_bytes().splitlines() if line.endswith(b"}")]
        loader = FileSystemLoader(Path(__file__).parent / "data")
        environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        page = environment.get_template("watch.html.j2").render(
            headline=_headline(rows, self._total, ended=ended), alarms=alarms[-_ALARMS:], pictures=_pictures(rows), ended=ended, seconds=round(_SECONDS)
        )
        write_atomically(self.file, page.encode())
        # Every step of a long training is read for it: drawing takes at most a fiftieth of the time.
        self._due = time.monotonic() + max(_SECONDS, _SHARE * (time.monotonic() - began))


def _pictures(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup, Sequence[str]]]:
    """Return (title, picture, names of its series), of those that have something to show."""
    checks = [row for row in rows if "validation_loss" in row]
    groups = sorted({group for row in checks for group in row["validation_by_group"]})[:_COLOURS]
    thinned = rows[:: max(1, len(rows) // _POINTS)]
    loss = {"s0": [(row["step"], row["loss"]) for row in thinned], "s1": [(row["step"], row["validation_loss"]) for row in checks]}
    by_group = {f"s{place}": [(row["step"], row["validation_by_group"].get(group, math.nan)) for row in checks] for place, group in enumerate(groups)}
    norm = {"s0": [(row["step"], row["gradient_norm"]) for row in thinned]}
    rate = {"s0": [(row["step"], row["tokens"] / max(row["seconds"], 1e-9)) for row in thinned]}
    drawn: list[tuple[str, dict[str, list[tuple[float, float]]], Sequence[str]]] = [
        ("Loss, nats a learnt token", loss, ("training", "validation")),
        ("Validation loss by task", by_group if len(groups) > 1 else {}, groups),
        ("Gradient norm, before it is clipped", norm, ()),
        ("Tokens a second", rate, ()),
    ]
    return [(title, lines(series, title=title, x_label="step"), names) for title, series, names in drawn if any(series.values())]


def _headline(rows: Sequence[Mapping[str, Any]], total: int, *, ended: bool) -> str:
    if not rows:
        return f"Training begins: {total} steps"
    last = rows[-1]
    if ended:
        return f"Training ended after {len(rows)} steps, loss {last['loss']:.3f}"
    recent = [row["seconds"] for row in rows[-50:]]
    left = (total - last["step"]) * sum(recent) / len(recent)
    return f"Step {last['step']} of {total}, loss {last['loss']:.3f}, about {left / 60:.0f} minutes left"
