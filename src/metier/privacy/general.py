"""The identifiers that every domain needs, and how a pack's own join them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from metier.errors import PackError
from metier.packs import Identifier, Pack
from metier.packs.loader import read_list
from metier.privacy.validators import VALIDATORS

__all__ = ["Rules", "general_identifiers", "rules_of"]

Rules = tuple[tuple[Identifier, ...], Mapping[str, Callable[[str], bool]]]
"""Identifiers and the table of the validators that they name."""


@lru_cache(maxsize=1)
def general_identifiers() -> tuple[Identifier, ...]:
    """Return the identifiers of ``data/identifiers.yaml``, Chinese and English."""
    _, items, faults = read_list(Path(__file__).parent / "data" / "identifiers.yaml", "identifiers", Identifier)
    if faults:
        raise PackError(faults)
    return tuple(item for _, item in items)


@lru_cache(maxsize=64)
def _joined(identifiers: tuple[Identifier, ...]) -> tuple[Identifier, ...]:
    return (*identifiers, *general_identifiers())


def rules_of(pack: Pack) -> Rules:
    """Return a pack's identifiers together with the general ones, and both tables of validators; the pack's functions win a shared name."""
    return _joined(pack.identifiers), {**VALIDATORS, **pack.validators}
