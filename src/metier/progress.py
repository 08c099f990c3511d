"""Progress as rooms report it. The command line draws it; a library user may ignore it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["SILENT", "Progress", "Relayed", "Silent", "relay"]


class Progress(Protocol):
    """Where long work tells how far it is. `total` is None where it is not known beforehand."""

    def start(self, task: str, total: float | None = None, unit: str = "") -> None:
        """Begin (or begin again) the task of this name."""

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Say that `amount` more units are done; `note` is a short live figure such as the loss."""

    def finish(self, task: str, note: str = "") -> None:
        """Say that the task is done."""

    def say(self, message: str) -> None:
        """Tell the user one line that stays on the screen."""


class Silent:
    """A progress that shows nothing."""

    def start(self, task: str, total: float | None = None, unit: str = "") -> None:
        """Ignore."""

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Ignore."""

    def finish(self, task: str, note: str = "") -> None:
        """Ignore."""

    def say(self, message: str) -> None:
        """Ignore."""


SILENT: Progress = Silent()


class Relayed:
    """A progress that is shown elsewhere: every report is handed on, as the method's name and its arguments."""

    def __init__(self, hand_on: Callable[[str, tuple[Any, ...]], None]) -> None:
        self._hand_on = hand_on

    def start(self, task: str, total: float | None = None, unit: str = "") -> None:
        """Hand on."""
        self._hand_on("start", (task, total, unit))

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Hand on."""
        self._hand_on("advance", (task, amount, note))

    def finish(self, task: str, note: str = "") -> None:
        """Hand on."""
        self._hand_on("finish", (task, note))

    def say(self, message: str) -> None:
        """Hand on."""
        self._hand_on("say", (message,))


def relay(progress: Progress, name: str, arguments: tuple[Any, ...]) -> None:
    """Report what was handed on."""
    getattr(progress, name)(*arguments)
