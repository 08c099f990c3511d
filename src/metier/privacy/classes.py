"""The classes of personal information that regimes name, and which kinds of identifiers cover them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from metier.config import Settings
from metier.errors import PackError
from metier.packs import Identifier
from metier.packs.loader import read_list

__all__ = ["RegimeClass", "coverage", "regime_classes"]


class RegimeClass(Settings):
    """One class of personal information of one regime."""

    id: str
    """What an identifier gives under `classes`."""
    regime: str
    """Name of the regime (`hipaa`, `pipl`, `gdpr`)."""
    clause: str
    """Where the regime names it."""
    title: dict[str, str]
    """Title by language."""
    text: bool = True
    """Whether it can stand in text; a class that cannot is not applicable, which is not the same as covered."""


@lru_cache(maxsize=1)
def regime_classes() -> tuple[RegimeClass, ...]:
    """Return the classes of ``data/classes.yaml``."""
    _, items, faults = read_list(Path(__file__).parent / "data" / "classes.yaml", "classes", RegimeClass)
    if faults:
        raise PackError(faults)
    return tuple(item for _, item in items)


def coverage(identifiers: Iterable[Identifier], regime: str | None = None) -> Mapping[str, tuple[str, ...]]:
    """Return class -> kinds of identifiers that cover it, for the classes of a regime (None: of all) that can stand in text.

    A class without a kind is not covered by rules. Raises PackError for an identifier that names a class that does not exist.
    """
    known = {item.id for item in regime_classes()}
    found: dict[str, dict[str, None]] = {item.id: {} for item in regime_classes() if item.text and regime in (None, item.regime)}
    for identifier in identifiers:
        for name in identifier.classes:
            if name not in known:
                raise PackError(f"{identifier.entity} names the class {name!r}, which no regime has")
            if name in found:
                found[name][identifier.entity] = None
    return {name: tuple(kinds) for name, kinds in found.items()}
