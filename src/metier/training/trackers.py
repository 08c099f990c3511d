"""Metrics handed to the trackers of the field, by name, through accelerate. Without a name nothing is handed to anyone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from metier.errors import Fault, InputError

__all__ = ["Trackers"]


class Trackers:
    """The trackers that a training was given."""

    def __init__(self, names: Sequence[str], *, folder: Path, project: str, run: str, settings: Mapping[str, Any]) -> None:
        """Begin a run at every tracker. Raises InputError for those whose package is not installed, all at once."""
        missing = [name for name in names if find_spec(name) is None]
        faults = [Fault(f"the tracker {name} is not installed", key="training.monitor.trackers", remedy=f"pip install {name}") for name in missing]
        if faults:
            raise InputError(faults)
        self._open = []
        flat = dict(_flat(settings))
        for name in names:
            kind = LOGGER_TYPE_TO_CLASS[name]
            tracker = kind(f"{project}-{run}", logging_dir=str(folder)) if kind.requires_logging_directory else kind(project)
            if hasattr(tracker, "start"):
                tracker.start()
            tracker.store_init_configuration(flat)
            self._open.append(tracker)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Hand on the figures of a step."""
        for tracker in self._open:
            tracker.log(dict(values), step=step)

    def finish(self) -> None:
        """End the run at every tracker."""
        for tracker in self._open:
            tracker.finish()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, int | float | str | bool) else str(value)
