"""What those who work on requests have in common: the engine that writes answers, and the desk that labels texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from metier.serving.released import Executed

__all__ = ["Busy", "EngineFailed", "Load", "Worker"]


class Busy(Exception):
    """All rows are taken and the queue is full; `seconds` is when it may be worth to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__("the queue is full")
        self.seconds = seconds


class EngineFailed(Exception):
    """The step that worked on this request failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests run and wait, and for which releases."""

    running: int
    waiting: int
    running_names: tuple[str, ...]
    waiting_names: tuple[str, ...]


class Worker(Protocol):
    """Somebody who works on requests on a thread of their own."""

    loaded: tuple[Executed, ...]

    @property
    def alive(self) -> bool:
        """Whether requests are being worked on."""

    @property
    def load(self) -> Load:
        """What runs and waits now."""

    def start(self) -> None:
        """Start to work."""

    def stop(self) -> None:
        """End the work and return when it has ended."""

    def find(self, name: str) -> Executed | None:
        """Return the release that is loaded under exactly this name."""

    def longest(self, name: str) -> int:
        """Return how many tokens a request may have for a release."""
