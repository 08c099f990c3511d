"""`metier serve` in a process of its own, with one release and a recorder in a file beside the project."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metier.cli import serve
from metier.cli.main import main
from metier.events import Record
from metier.models import resolve
from metier.project import Project
from metier.serving import Served
from serving.conftest import FileRecorder, served


@contextmanager
def connect(project: Project) -> Iterator[tuple[list[Served], Record]]:
    """Stand in for the registry and the ledger."""
    base = resolve(project.settings.base, root=project.root)
    yield [served(base, "alpha", Path(sys.argv[1]))], FileRecorder(project.root / "log.jsonl")


serve.connect = connect
main(sys.argv[2:])
