"""Demos: complete projects that installed packages write, so that the main path can be seen on real input.

A package offers one under the entry-point group `metier.demos`: `name = "package.module:write_project"`, a function
`write_project(folder, *, seed, scale) -> None` that writes `metier.yaml` and the data beside it into an empty folder.
"""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from metier.digest import canonical_json
from metier.errors import InputError, MissingExtra, nearest
from metier.project import PROJECT_FILE, Project, load_project
from metier.store import remove_folder, write_atomically

__all__ = ["GROUP", "available", "prepare"]

GROUP = "metier.demos"
"""Entry-point group under which a distribution offers demos."""

_ORDER = "demo.json"


def available() -> list[str]:
    """Return the names of the installed demos. None of them is imported."""
    return sorted(entry_points(group=GROUP).names)


def prepare(folder: Path, *, name: str | None = None, seed: int = 0, scale: float = 1.0) -> Project:
    """Return the demo project in a folder, writing it first where the folder is absent or empty.

    It is written aside and moved into place, so that a folder holds all of it or nothing. Raises InputError for a folder with
    something else in it, or with a demo of another seed, scale or name, and where it is not clear which demo is meant.
    """
    order = {"demo": _chosen(name).name, "seed": seed, "scale": scale}
    if (folder / _ORDER).is_file() and (folder / PROJECT_FILE).is_file():
        _same(folder, order)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and holds something else than a demo\n    -> name another folder: metier demo FOLDER")
    else:
        _write(folder, order)
    return load_project(folder)


def _chosen(name: str | None) -> EntryPoint:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if not points:
        raise InputError("no demo is installed\n    -> pip install 'metier[demo]'")
    if name is None and len(points) > 1:
        raise InputError(f"several demos are installed: {', '.join(sorted(points))}\n    -> name one: --demo NAME")
    if name is not None and name not in points:
        raise InputError(f"there is no demo {name!r}\n    -> {nearest(name, list(points))}")
    return points[name] if name is not None else next(iter(points.values()))


def _same(folder: Path, order: dict[str, Any]) -> None:
    try:
        written = json.loads((folder / _ORDER).read_bytes())
    except ValueError:
        written = None
    if written != order:
        raise InputError(f"{folder} holds the demo {written}, not {order}\n    -> give the same options again, or another folder")


def _write(folder: Path, order: dict[str, Any]) -> None:
    try:
        write_project = _chosen(order["demo"]).load()
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "demo", f"the demo {order['demo']!r}") from error
    aside = folder.absolute().parent / f".{folder.absolute().name}.writing"
    remove_folder(aside)
    aside.mkdir(parents=True)
    write_project(aside, seed=order["seed"], scale=order["scale"])
    write_atomically(aside / _ORDER, canonical_json(order))
    aside.rename(folder)
