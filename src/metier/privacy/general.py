"""The identifiers that every domain needs, and how a pack's own join them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from metier.errors import Fault, PackError
from metier.packs import Identifier, Pack, available, load
from metier.packs.loader import read_list
from metier.privacy.validators import VALIDATORS

__all__ = ["Rules", "general_identifiers", "rules_of", "rules_of_all"]

Rules = tuple[tuple[Identifier, ...], Mapping[str, Callable[[str], bool]]]
"""Identifiers and the table of the validators that they name."""

_FILES = ("identifiers.yaml", "identifiers-cn.yaml", "identifiers-us.yaml", "identifiers-uk.yaml", "identifiers-online.yaml")


@lru_cache(maxsize=1)
def general_identifiers() -> tuple[Identifier, ...]:
    """Return the identifiers of ``data/identifiers*.yaml``, Chinese and English."""
    found: list[Identifier] = []
    faults: list[Fault] = []
    for name in _FILES:
        _, items, more = read_list(Path(__file__).parent / "data" / name, "identifiers", Identifier)
        found += [item for _, item in items]
        faults += more
    if faults:
        raise PackError(faults)
    return tuple(found)


@lru_cache(maxsize=64)
def _joined(identifiers: tuple[Identifier, ...]) -> tuple[Identifier, ...]:
    return (*identifiers, *general_identifiers())


def rules_of(pack: Pack) -> Rules:
    """Return a pack's identifiers together with the general ones, and both tables of validators; the pack's functions win a shared name."""
    return _joined(pack.identifiers), {**VALIDATORS, **pack.validators}


@lru_cache(maxsize=1)
def rules_of_all() -> Rules:
    """Return the identifiers of every installed pack and the general ones, for text whose domain is not known.

    Validators of packs are told apart by the pack, so that two packs may give one name to different functions.
    """
    identifiers: list[Identifier] = []
    table = dict(VALIDATORS)
    for installed in available():
        pack = load(installed.name)
        table |= {f"{installed.name}:{name}": function for name, function in pack.validators.items()}
        for item in pack.identifiers:
            own = item.validator if item.validator is None or item.validator not in pack.validators else f"{installed.name}:{item.validator}"
            identifiers.append(item.model_copy(update={"validator": own}))
    return (*identifiers, *general_identifiers()), table
