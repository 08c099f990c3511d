"""The command line as tests call it: as a process, or in this process; and one finished project for all of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.hives import write_project
from metier.cli.main import main
from metier.models import Base

COMMAND = [sys.executable, "-m", "metier.cli.main"]


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document in the last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


@dataclass(frozen=True)
class Finished:
    """A project that `metier run --json` has walked to the end."""

    folder: Path
    ended: Ended

    @property
    def document(self) -> dict[str, Any]:
        """What the run printed."""
        return self.ended.document


# One thread: the tiny model gains nothing from more, and two of them wait for each other on a busy machine.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def as_process(*arguments: object, stdin: str | None = None) -> Ended:
    """Run `metier` as a process of its own."""
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False, input=stdin, env=ENVIRONMENT)
    return Ended(done.returncode, done.stdout, done.stderr)


Invoke = Callable[..., Ended]


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run `metier` in this process, which saves the seconds that importing torch takes."""

    def call(*arguments: object) -> Ended:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
        finally:
            torch.set_num_threads(threads)
            for number, handler in before.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return Ended(int(code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def finished(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The shared project, run to the end by the real command. Tests must not change it."""
    folder = write_project(tmp_path_factory.mktemp("finished") / "hives", base.folder)
    ended = as_process("run", folder, "--json")
    assert ended.code == 0, ended.err
    return Finished(folder, ended)


@pytest.fixture
def project(base: Base, tmp_path: Path) -> Path:
    """A project that nothing has run in yet."""
    return write_project(tmp_path / "hives", base.folder)


@pytest.fixture
def twin(finished: Finished, tmp_path: Path) -> Path:
    """A project with the data, settings and secrets of the finished one, in which nothing has run yet."""
    folder = tmp_path / "twin"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns(".metier"))
    shutil.copytree(finished.folder / ".metier" / "keys", folder / ".metier" / "keys")
    (folder / ".metier" / "keys").chmod(0o700)
    return folder


def losses(project: Path) -> list[float]:
    """Return the training losses, step by step, of a project's only run."""
    (metrics,) = (project / ".metier" / "artifacts" / "run").glob("*/metrics.jsonl")
    return [json.loads(line)["loss"] for line in metrics.read_text(encoding="utf-8").splitlines()]
