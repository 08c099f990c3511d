"""What a launcher (torchrun, `accelerate launch`) says of this process, read from its environment. Nothing heavy is imported here."""

from __future__ import annotations

import os

__all__ = ["following", "processes"]


def processes() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE") or "1")


def following() -> bool:
    """Return whether this process follows another one: it takes part in training alone."""
    return processes() > 1 and int(os.environ.get("RANK") or "0") > 0
