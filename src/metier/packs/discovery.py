"""Finds installed packs: entry points of the group ``metier.packs``, loaded by name and only when asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from metier.errors import Fault, PackError, nearest
from metier.packs.loader import load_folder
from metier.packs.spec import Pack

__all__ = ["GROUP", "Installed", "available", "load", "load_path"]

GROUP = "metier.packs"
"""Entry-point group under which a distribution offers its packs."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A pack that is installed: its name, the object that holds it and the distribution it came with."""

    name: str
    target: str
    distribution: str
    version: str


def available() -> list[Installed]:
    """Return every installed pack in order of name. No pack is imported."""
    return sorted((_describe(point) for point in entry_points(group=GROUP)), key=lambda item: (item.name, item.distribution))


def load(name: str) -> Pack:
    """Return the pack installed under `name`.

    Raises PackError if no pack or more than one has the name, if it cannot be imported, or with its own faults.
    """
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        known = sorted({point.name for point in entry_points(group=GROUP)})
        raise PackError(Fault(f"no pack named {name!r} is installed", key="pack", remedy=nearest(name, known)))
    targets = sorted({point.value for point in points})
    if len(targets) > 1:
        raise PackError(Fault(f"more than one pack is named {name!r}: {', '.join(targets)}", key="pack", remedy="uninstall all but one"))
    try:
        pack = points[0].load()
    except (ImportError, AttributeError, SyntaxError) as fault:
        where = _describe(points[0])
        what = f"the pack {name!r} ({where.target} of {where.distribution} {where.version}) cannot be imported: {type(fault).__name__}: {fault}"
        raise PackError(Fault(what, key="pack", remedy="install the distribution again, or mend its pack.py")) from fault
    if not isinstance(pack, Pack):
        raise PackError(Fault(f"{targets[0]} is {type(pack).__name__}, not a Pack", key="pack", remedy="assign metier.packs.load_folder(...) to it"))
    if pack.facts.name != name:
        raise PackError(Fault(f"the pack installed as {name!r} calls itself {pack.facts.name!r}", pack.folder / "pack.yaml", key="name"))
    return pack


def load_path(folder: Path) -> Pack:
    """Return the pack in a folder that need not be installed: `pack` of its pack.py, or its YAML files alone where it has none.

    The folder is the pack's own or one that holds it. Runs the pack's code. Raises PackError as `load` does.
    """
    places = [path.parent for path in (folder / "pack.yaml", *sorted(folder.glob("*/pack.yaml"))) if path.is_file()]
    if len(places) != 1:
        what = f"{len(places)} packs in it: {', '.join(place.name for place in places)}" if places else "no pack.yaml in it or in a folder of it"
        raise PackError(Fault(what, folder, remedy="name the folder of one pack, or write one with: metier packs new FOLDER"))
    place = places[0].resolve()
    if not (place / "pack.py").is_file():
        return load_folder(place)
    with _importing(place):
        try:
            pack = importlib.import_module(f"{place.name}.pack").pack
        except (ImportError, AttributeError, SyntaxError) as fault:
            raise PackError(Fault(f"cannot be imported: {type(fault).__name__}: {fault}", place / "pack.py", remedy="mend it")) from fault
    if not isinstance(pack, Pack):
        raise PackError(Fault(f"`pack` is {type(pack).__name__}, not a Pack", place / "pack.py", remedy="assign metier.packs.load_folder(...) to it"))
    return pack


@contextmanager
def _importing(place: Path) -> Iterator[None]:
    """Let a package be imported from this very place, whatever package of its name is installed or was imported before."""

    def own() -> list[str]:
        return [name for name in sys.modules if name == place.name or name.startswith(f"{place.name}.")]

    before = {name: sys.modules.pop(name) for name in own()}
    sys.path.insert(0, str(place.parent))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(place.parent))
        for name in own():
            del sys.modules[name]
        sys.modules.update(before)


def _describe(point: EntryPoint) -> Installed:
    distribution = point.dist
    return Installed(point.name, point.value, distribution.name if distribution else "", distribution.version if distribution else "")
