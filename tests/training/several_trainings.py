"""Runs whole trainings one after the other as one of several processes, and writes which artefacts they left: started by the tests.

Arguments: a store, a file with the trainings (name, dataset, base model, settings), a file to write, `replicated` or `sharded`, a number of steps to stop after
(0: none), and whether workspaces are kept apart from those of other calls.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from metier.models import Base, resolve
from metier.progress import Silent
from metier.store import Store
from metier.training import TrainingSettings
from metier.training.answers import prepare_answers
from metier.training.launch import following
from metier.training.taught import prepare_labels


class StopsError(Exception):
    """Ends a training, in every process alike."""


class Stops(Silent):
    """Ends a training after so many steps."""

    def __init__(self, left: int) -> None:
        self.left = left

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Count."""
        if self.left and task == "training":
            self.left -= 1
            if not self.left:
                raise StopsError


def main(store: Store, cases: dict[str, Any], out: Path, *, sharded: bool, stop: int, apart: str) -> None:
    torch.set_num_threads(1)
    left: dict[str, Any] = {}
    for name, case in cases.items():
        base: Base = resolve(case["base"], root=Path("/"))
        settings = TrainingSettings.model_validate_json(json.dumps(case["settings"]))
        workspace = store.workspace(f"{name}{apart}", Stops(stop))
        dataset = store.open("dataset", case["dataset"])
        if settings.task == "generation":
            prepared: Any = prepare_answers(dataset, base, settings, None, workspace=workspace, sharded=sharded)
        else:
            prepared = prepare_labels(dataset, base, settings, settings.task, workspace=workspace, sharded=sharded)
        try:
            prepared.trainer.run()
        except StopsError:
            continue
        if not following():
            left[name] = [artifact.digest for artifact in prepared.commit(workspace)]
    if not following():
        out.write_text(json.dumps(left))


if __name__ == "__main__":
    root, given, written, how, steps, kept = sys.argv[1:]
    main(Store(Path(root)), json.loads(Path(given).read_text()), Path(written), sharded=how == "sharded", stop=int(steps), apart=kept)
