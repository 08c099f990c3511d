"""Every error that Metier raises on purpose, and what the command line does with it.

::

    MetierError                 exit 2   the base: its text says what, where and what to do
    ├── InputError              exit 2   what the user gave is wrong; carries one Fault or many
    │   ├── ConfigError         exit 2   the project file (or another YAML file of settings)
    │   ├── SourceError         exit 2   a file of source data
    │   └── PackError           exit 2   a domain pack
    ├── PrivacyError            exit 2   personal data could not be removed with certainty; the record is set aside
    ├── ModelError              exit 2   a base model or an adapter cannot be used
    ├── StoreError              exit 2   the artefact store: damaged, full, not writable
    │   └── BusyError           exit 2   another process is working in the same project
    ├── LedgerError             exit 2   the audit log cannot keep an event, is damaged, or its keys are not there
    ├── MissingExtra            exit 2   an optional part is not installed
    ├── GateRefused             exit 1   a gate said no
    └── Interrupted             exit 3   stopped by the user; what is finished is kept

A message is written for the person who has to act on it. Tracebacks are for bugs: the command line shows one only for
an exception that is not in this tree.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

__all__ = [
    "BusyError",
    "ConfigError",
    "Fault",
    "GateRefused",
    "InputError",
    "Interrupted",
    "LedgerError",
    "MetierError",
    "MissingExtra",
    "ModelError",
    "PackError",
    "PrivacyError",
    "SourceError",
    "StoreError",
    "nearest",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: what, where (file, line, key) and what to do about it."""

    what: str
    path: Path | str | None = None
    line: int | None = None
    key: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        place = str(self.path) if self.path is not None else ""
        if self.line is not None:
            place = f"{place}:{self.line}" if place else f"line {self.line}"
        parts = [part for part in (place, self.key) if part]
        text = ": ".join([*parts, self.what])
        return f"{text}\n    -> {self.remedy}" if self.remedy else text


class MetierError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code: ClassVar[int] = 2


class InputError(MetierError):
    """What the user gave is wrong. Holds every fault that was found, not only the first."""

    def __init__(self, faults: Fault | Iterable[Fault] | str) -> None:
        if isinstance(faults, str):
            faults = Fault(faults)
        self.faults: tuple[Fault, ...] = (faults,) if isinstance(faults, Fault) else tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class ConfigError(InputError):
    """The project file, or another YAML file of settings, is wrong."""


class SourceError(InputError):
    """A file of source data cannot be read as what it is said to be."""


class PackError(InputError):
    """A domain pack is missing, or breaks the contract of packs."""


class PrivacyError(MetierError):
    """Personal data could not be removed from a record with certainty. The text never holds the data itself."""


class ModelError(MetierError):
    """A base model or an adapter cannot be used."""


class StoreError(MetierError):
    """The artefact store is damaged, full or not writable."""


class BusyError(StoreError):
    """Another process is working in the same project."""


class LedgerError(MetierError):
    """The audit log cannot keep an event, does not verify, or its keys are missing or wrong. What was to be logged must not happen."""


class MissingExtra(MetierError):
    """An optional part of Metier is needed and not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}, which is not installed\n    -> pip install 'metier[{extra}]'")


class GateRefused(MetierError):
    """A gate looked at the evidence and said no."""

    exit_code = 1


class Interrupted(MetierError):
    """The user stopped the work; everything finished is kept and the same command goes on from there."""

    exit_code = 3


def nearest(name: str, valid: Sequence[str]) -> str:
    """Return a remedy that names the valid entries nearest to `name`, or all of them if none is near."""
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "valid: " + ", ".join(sorted(valid)) if valid else "nothing is valid here"
