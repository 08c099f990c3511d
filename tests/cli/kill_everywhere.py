"""Runs a project and kills itself with signal 9 at one place after the other, then runs it to the end and prints the document.

A program of its own: it imports torch once, before any thread runs, and forks one child for each life.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import metier.models.local
import metier.training.answers  # noqa: F401 - imported before the forks, so that no child pays for it
from metier import flow
from metier.cli.results import document
from metier.project import load_project

PLACES = [
    ("refine", "finish", 1),
    ("write", "start", 1),
    ("training", "start", 1),
    ("training", "advance", 5),
    ("validation", "finish", 1),
    ("season (base)", "finish", 1),
    ("count (tuned)", "start", 1),
    ("metier/question (tuned)", "finish", 1),
]


class Deadly:
    """A progress that kills its process at the n-th event of a kind of a task."""

    def __init__(self, task: str, event: str, number: int) -> None:
        self.wanted = (task, event)
        self.left = number

    def _event(self, task: str, event: str) -> None:
        if (task, event) == self.wanted:
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), signal.SIGKILL)

    def start(self, task: str, total: float | None = None, unit: str = "") -> None:
        self._event(task, "start")

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        self._event(task, "advance")

    def finish(self, task: str, note: str = "") -> None:
        self._event(task, "finish")

    def say(self, message: str) -> None:
        pass


def _say(value: object) -> None:
    """Write a line of JSON to stdout, past all buffers: a child ends without flushing them."""
    os.write(1, json.dumps(value).encode() + b"\n")


def _life(folder: Path, progress: Deadly) -> int:
    """Run the project in a child and return the number of the signal that ended it, 0 if none did."""
    child = os.fork()
    if not child:
        outcome = flow.run(load_project(folder), progress=progress)
        _say(document(outcome))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


if __name__ == "__main__":
    project = Path(sys.argv[1])
    ends = [_life(project, Deadly(*place)) for place in PLACES]
    _say(ends)
    _life(project, Deadly("", "", 0))
