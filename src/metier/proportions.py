"""How much of each group is taken: shares by temperature, and whole numbers that add up."""

from __future__ import annotations

from collections.abc import Mapping

from metier.errors import Fault, InputError, nearest

__all__ = ["apportion", "shares"]


def shares(counts: Mapping[str, int], *, alpha: float = 0.6, weights: Mapping[str, float] | None = None, key: str) -> dict[str, float]:
    """Return the share of each group: ``w_i n_i^alpha / sum_j w_j n_j^alpha`` (temperature sampling; Conneau and Lample, 2019, 3.1).

    Raises InputError for a weight of a group that is not there, or if nothing is left; `key` is the place of the settings in the project file.
    """
    weights = weights or {}
    if unknown := [name for name in weights if name not in counts]:
        faults = [Fault(f"there is no group {name!r}", key=f"{key}.weights", remedy=nearest(name, list(counts))) for name in unknown]
        raise InputError(faults)
    raw = {name: weights.get(name, 1.0) * count**alpha if count else 0.0 for name, count in counts.items()}
    total = sum(raw.values())
    if not total:
        raise InputError(Fault("nothing is left to mix: every group is empty or has the weight 0", key=key, remedy="raise a weight"))
    return {name: value / total for name, value in raw.items()}


def apportion(total: int, wanted: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers near `total` times the shares `wanted` that add up to `total` exactly (largest remainder; Hamilton's method).

    Of equal remainders the name that comes first in the alphabet gets the seat.
    """
    whole = sum(wanted.values())
    exact = {name: total * value / whole for name, value in wanted.items()}
    seats = {name: int(value) for name, value in exact.items()}
    rest = sorted(exact, key=lambda name: (-round(exact[name] - seats[name], 9), name))
    for name in rest[: total - sum(seats.values())]:
        seats[name] += 1
    return seats
