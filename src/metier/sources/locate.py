"""Which files a source means, and whether the project may read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from metier.errors import Fault

__all__ = ["display", "find"]

_WILD = "*?["


def display(path: Path, root: Path) -> str:
    """Return a file's name in messages and provenance: relative to the project where it lies inside."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def find(pattern: str, root: Path, key: str) -> tuple[list[Path], list[Fault]]:
    """Return the files that a pattern means, sorted by name, and what is wrong with it.

    Hidden files are passed over by wildcards. Patterns relative to the project never reach a file outside it, also not
    through symbolic links; an absolute pattern is an explicit permission.
    """
    absolute = Path(pattern).is_absolute()
    if any(mark in pattern for mark in _WILD):
        candidates = sorted(_glob(pattern, root, absolute))
        if not candidates:
            return [], [Fault(f"no file matches {pattern!r}", key=key, remedy=f"it is looked for below {'/' if absolute else root}")]
    else:
        candidates = [Path(pattern) if absolute else root / pattern]
    found, faults = [], []
    for path in candidates:
        fault = _refusal(path, root, absolute)
        if fault is None:
            found.append(path)
        else:
            faults.append(Fault(fault[0], display(path, root), key=key, remedy=fault[1]))
    return found, faults


def _glob(pattern: str, root: Path, absolute: bool) -> Iterator[Path]:
    base = Path(Path(pattern).anchor) if absolute else root
    relative = str(Path(pattern).relative_to(base)) if absolute else pattern
    for path in base.glob(relative):
        hidden = any(part.startswith(".") for part in path.relative_to(base).parts)
        if not path.is_dir() and not (hidden and "/." not in f"/{relative}"):
            yield path


def _refusal(path: Path, root: Path, absolute: bool) -> tuple[str, str] | None:
    """Return what is wrong with a file and the remedy, or None."""
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        return ("there is no such file", "check the path; it is relative to the project folder")
    except (OSError, RuntimeError) as error:
        return (f"cannot be followed ({error})", "name the file itself")
    if not absolute and not real.is_relative_to(root.resolve()):
        return ("the symbolic link leads out of the project", "copy the file into the project, or write its absolute path")
    if real.is_dir():
        return ("this is a folder, not a file", "name its files, for instance with /*.jsonl or /**/*.csv at the end")
    if not real.is_file():
        return ("this is no regular file", "name a file of data")
    return None
