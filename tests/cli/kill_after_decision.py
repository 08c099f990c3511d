"""Stops `metier approve` and `metier release` by a signal at every (or every STEPth) moment around what they put on record, then runs each to its end.

    python kill_after_decision.py SIGNAL STEP PROJECT FOLDER CONTROL...

PROJECT waits for an approval with these controls; every life begins from a copy of it in FOLDER. Prints a list of JSON for each life: the
command, the moment, how it ended (a signal's number below zero, else the exit code), and the exit code of the same command afterwards.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import metier.evaluation.stage
import metier.models.local
import metier.training.answers  # noqa: F401 - imported before the forks, so that no child pays for it
from metier.cli.chain import Chain
from metier.cli.main import main


def deadly(function: Callable[..., Any], left: list[int], number: int) -> Callable[..., Any]:
    """Return the function, which sends this process a signal before or after a call once `left` has counted down."""

    def moment() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)

    def call(*given: Any) -> Any:
        moment()
        result = function(*given)
        moment()
        return result

    return call


def life(arguments: list[str], moment: int = 0, number: int = 0) -> int:
    """Run a command in a child, with a signal at a moment if one is given, and return how it ended."""
    child = os.fork()
    if not child:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        if number:
            left = [moment]
            Chain.record, Chain.keep = deadly(Chain.record, left, number), deadly(Chain.keep, left, number)  # type: ignore[method-assign]
        try:
            main(arguments)
        except SystemExit as ended:
            os._exit(int(ended.code or 0))
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def lives(command: list[str], before: Path, folder: Path, number: int, step: int) -> Path:
    """Stop a command at every moment that it has, and return the copy in which it was never stopped."""
    for moment in itertools.count(1, step):
        copy = folder / f"{command[0]}-{moment}"
        shutil.copytree(before, copy)
        arguments = [command[0], str(copy), *command[1:]]
        ended = life(arguments, moment, number)
        if ended == 0:
            return copy
        os.write(1, json.dumps([command[0], moment, ended, life(arguments)]).encode() + b"\n")
    raise AssertionError


if __name__ == "__main__":
    number, step, waiting, copies = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    controls = [word for name in sys.argv[5:] for word in ("--control", name)]
    approved = lives(["approve", "--by", "Zhang Wei", *controls], waiting, copies, number, step)
    lives(["release"], approved, copies, number, step)
