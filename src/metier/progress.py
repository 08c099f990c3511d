"""Progress as rooms report it. The command line draws it; a library user may ignore it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Progress", "Silent"]


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
