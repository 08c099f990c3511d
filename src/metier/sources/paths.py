"""Paths of keys into JSON, as the project file writes them: keys with dots between them, a key that holds a dot in brackets and quotes."""

from __future__ import annotations

import json
import re

__all__ = ["keys_of"]

_STEP = re.compile(r'\[("(?:[^"\\]|\\.)*")\]|((?:(?!\[")[^.])+)')


def keys_of(path: str) -> list[str]:
    """Return the keys of a path: `data.items` gives data and items, `data["v1.0"].items` data, v1.0 and items, as positions are shown.

    What stands in brackets is a string as JSON writes it. Raises ValueError for a path with an empty key or a bracket that is not closed.
    """
    keys: list[str] = []
    at = 0
    while found := _STEP.match(path, at):
        keys.append(json.loads(found[1]) if found[1] is not None else found[2])
        at = found.end()
        if at == len(path):
            return keys
        at += path[at] == "."
        if found.end() == at and not path.startswith('["', at):
            break
    raise ValueError(f'{path!r} is no path of keys: write data.items, and a key that holds a dot as data["v1.0"].items')
