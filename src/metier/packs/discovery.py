"""Finds installed packs: entry points of the group ``metier.packs``, loaded by name and only when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from metier.errors import Fault, PackError, nearest
from metier.packs.spec import Pack

__all__ = ["GROUP", "Installed", "available", "load"]

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


def _describe(point: EntryPoint) -> Installed:
    distribution = point.dist
    return Installed(point.name, point.value, distribution.name if distribution else "", distribution.version if distribution else "")
