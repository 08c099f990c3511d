"""Pictures of the data card: standing alone, in light and dark, Chinese labels included. Every number in them stands in the card too."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from metier.charts import WIDTH, frame, line, number, rectangle, text, ticks

__all__ = ["bars", "columns", "shares"]

_SHEET = Markup(
    "text{font-family:system-ui,-apple-system,'Segoe UI','PingFang SC','Hiragino Sans GB','Microsoft YaHei','Noto Sans CJK SC','WenQuanYi Zen Hei',sans-serif;"
    "font-size:13px;fill:#1c2a2e}.tick{font-size:12px;fill:#5a6a6e}.axis{font-size:12px;fill:#5a6a6e}.grid{stroke:#d8e0e2;stroke-width:1}"
    ".bar{fill:#00796b}.over{fill:#b23c17}.c0{fill:#00796b}.c1{fill:#c77700}.c2{fill:#3f5fa8}.c3{fill:#8e4585}.c4{fill:#6d7f1e}.c5{fill:#5a6a6e}"
    "@media(prefers-color-scheme:dark){text{fill:#e3eaec}.tick,.axis{fill:#9fb0b5}.grid{stroke:#38474c}.bar,.c0{fill:#4db6ac}.over{fill:#ff8a65}}"
)
_COLOURS = 6
_PITCH = 26.0


def _wide(content: str) -> float:
    """Return about how wide a text is in units of the picture: Han letters take twice a Latin one."""
    return sum(13.0 if unicodedata.east_asian_width(char) in "WF" else 7.2 for char in content)


def _shortened(content: str, room: float) -> str:
    if _wide(content) <= room:
        return content
    while content and _wide(content) > room - 10:
        content = content[:-1]
    return content + "\u2026"


def bars(values: Mapping[str, float], *, title: str, unit: str = "records", most: int = 20) -> Markup:
    """Return a picture of one bar a name, the largest first; with more than `most` names the rest is one bar."""
    shown = dict(sorted(values.items(), key=lambda item: (-item[1], item[0])))
    if len(shown) > most:
        kept = dict(list(shown.items())[: most - 1])
        kept[f"{len(shown) - len(kept)} others"] = sum(shown.values()) - sum(kept.values())
        shown = kept
    if not shown:
        return Markup("")
    left = min(320.0, 24 + max(_wide(name) for name in shown))
    right, top = WIDTH - 90.0, 10.0
    scale = (right - left) / (max(shown.values()) or 1)
    body = []
    for place, (name, value) in enumerate(shown.items()):
        y = top + _PITCH * place
        body.append(text(left - 10, y + 17, _shortened(name, left - 16), "name", "end"))
        body.append(rectangle(left, y + 3, max(1.0, value * scale), _PITCH - 8, "bar"))
        body.append(text(left + max(1.0, value * scale) + 8, y + 17, number(value), "tick"))
    height = top + _PITCH * len(shown) + 26
    body.append(text(left, height - 6, unit, "axis"))
    return frame(height, title, body, style=_SHEET)


def columns(counts: Mapping[str, int], *, title: str, x_label: str, over: Sequence[str] = ()) -> Markup:
    """Return a histogram: one column a bin, in the bins' order; those named in `over` are drawn as too large."""
    if not counts or not max(counts.values()):
        return Markup("")
    height, left, right, top, bottom = 230.0, 60.0, WIDTH - 16.0, 12.0, 180.0
    upward = ticks(0, max(counts.values()), 4)
    pitch = (right - left) / len(counts)
    body = []
    for value in upward:
        y = bottom - value / upward[-1] * (bottom - top)
        body += [line((left, y), (right, y), "grid"), text(left - 8, y + 4, number(value), "tick", "end")]
    every = max(1, round(len(counts) / 20))
    for place, (name, count) in enumerate(counts.items()):
        x, tall = left + pitch * place, count / upward[-1] * (bottom - top)
        if count:
            body.append(rectangle(x + pitch * 0.1, bottom - max(1.0, tall), pitch * 0.8, max(1.0, tall), "over" if name in over else "bar"))
        if place % every == 0:
            body.append(text(x + pitch / 2, bottom + 18, name, "tick", "middle"))
    body.append(text((left + right) / 2, height - 8, x_label, "axis", "middle"))
    return frame(height, title, body, style=_SHEET)


def shares(rows: Mapping[str, Mapping[str, int]], *, title: str, most: int = _COLOURS) -> Markup:
    """Return a picture of one full-width bar a row, divided by the parts' shares; parts beyond the `most` largest are one."""
    rows = {name: parts for name, parts in rows.items() if sum(parts.values())}
    if not rows:
        return Markup("")
    totals: dict[str, int] = {}
    for parts in rows.values():
        for name, count in parts.items():
            totals[name] = totals.get(name, 0) + count
    largest = [name for name, _ in sorted(totals.items(), key=lambda item: (-item[1], item[0]))]
    named = largest if len(largest) <= most else largest[: most - 1]
    left = min(320.0, 24 + max(_wide(name) for name in rows))
    right, top = WIDTH - 80.0, 10.0
    body = []
    for place, (name, parts) in enumerate(rows.items()):
        y, total, x = top + _PITCH * place, sum(parts.values()), left
        body.append(text(left - 10, y + 17, _shortened(name, left - 16), "name", "end"))
        counted = [parts.get(part, 0) for part in named]
        for colour, count in enumerate([*counted, *([total - sum(counted)] if len(named) < len(largest) else [])]):
            wide = count / total * (right - left)
            if count:
                body.append(rectangle(x, y + 3, max(0.5, wide), _PITCH - 8, f"c{colour % _COLOURS}"))
            x += wide
        body.append(text(right + 8, y + 17, number(total), "tick"))
    return _with_legend(body, [*named, *(["others"] if len(named) < len(largest) else [])], top + _PITCH * len(rows), title, left)


def _with_legend(body: list[Markup], names: Sequence[str], below: float, title: str, left: float) -> Markup:
    x, y = left, below + 20
    for colour, name in enumerate(names):
        label = _shortened(name, 200)
        if x + 30 + _wide(label) > WIDTH:
            x, y = left, y + 22
        body += [rectangle(x, y - 10, 12, 12, f"c{colour % _COLOURS}"), text(x + 18, y + 1, label, "tick")]
        x += 40 + _wide(label)
    return frame(y + 14, title, body, style=_SHEET)
