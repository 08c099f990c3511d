"""Measurements of a plan, kept under what they were made from, and the figures that every plan gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metier.digest import canonical_json, digest_of
from metier.store import write_atomically
from metier.training.planning.hardware import Machine
from metier.training.planning.memory import Memory
from metier.training.planning.methods import Method
from metier.training.planning.work import Load

__all__ = ["data_facts", "estimated", "known"]


def known(cache: Path | None, key: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what was measured for this key before, or measure it and keep it."""
    path = None if cache is None else cache / f"{digest_of(key)[:32]}.json"
    if path is not None and path.is_file():
        try:
            found: dict[str, Any] = json.loads(path.read_bytes())
            return found
        except ValueError:
            pass
    made = make()
    if path is not None:
        write_atomically(path, canonical_json(made))
    return made


def data_facts(load: Load, passes: float) -> dict[str, Any]:
    """Return how much is read."""
    counts = {"examples": load.examples, "dropped": load.dropped, "tokens": load.tokens, "learnt_tokens": load.labels}
    return counts | {"steps": len(load.steps), "epochs": passes, "longest": max(row.longest for row in load.rows)}


def estimated(
    asked: tuple[str, Method],
    where: tuple[str, Machine],
    *,
    trained: int,
    flops: float,
    needed: Memory,
    held: tuple[int, int],
    rate: float | None,
    prices: Mapping[str, float],
) -> dict[str, Any]:
    """Return what a method takes on a machine; `held` is what the process holds before and held at most, `rate` FLOP/s where they were measured."""
    (role, method), (place, machine) = asked, where
    seconds = machine.seconds(flops) if rate is None else (flops / rate, flops / rate)
    process, highest = held if place == "here" else (0, 0)
    total = max(needed.total + process, highest)
    price = prices.get(place)
    return {
        "machine": place,
        "role": role,
        "method": asdict(method),
        "trainable_parameters": trained,
        "memory": asdict(needed) | {"process": process, "total": total},
        "memory_bytes": machine.memory,
        "fits": total <= machine.memory,
        "flops": flops,
        "seconds": list(seconds),
        "calibrated": rate is not None,
        "cost": None if price is None else [price * second / 3600 for second in seconds],
    }
