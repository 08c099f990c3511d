"""Writes a new pack: an installable folder that conforms from the first minute, to be filled with a domain's own rules."""

from __future__ import annotations

from pathlib import Path

import regex

from metier.errors import Fault, PackError

__all__ = ["write"]

_SOURCE = Path(__file__).parent / "data" / "scaffold"
_PROJECT_FILES = {"pyproject.toml.txt": "pyproject.toml"}
_PACKAGE_FILES = {"pack.py.txt": "pack.py"}
_NAME = regex.compile(r"[a-z][a-z0-9_-]*")


def write(folder: Path, name: str) -> list[Path]:
    """Write a minimal pack called `name` into `folder` and return the files written.

    The folder gets a ``pyproject.toml`` with the entry point and a package ``metier_<name>`` with every file of a pack; ``pip install
    -e FOLDER`` makes it available. Raises PackError for a name that packs cannot have and for files that are there already.
    """
    if _NAME.fullmatch(name) is None:
        raise PackError(Fault(f"{name!r} cannot be the name of a pack", remedy="use lower-case letters, digits, - and _, beginning with a letter"))
    module = name.replace("-", "_")
    words = {"__NAME__": name, "__MODULE__": module, "__DASHED__": name.replace("_", "-"), "__ID__": module.upper()[:2]}
    files: dict[Path, str] = {}
    for source in sorted(_SOURCE.iterdir()):
        text = source.read_text(encoding="utf-8")
        for placeholder, word in words.items():
            text = text.replace(placeholder, word)
        place = (
            folder / _PROJECT_FILES[source.name]
            if source.name in _PROJECT_FILES
            else folder / f"metier_{module}" / _PACKAGE_FILES.get(source.name, source.name)
        )
        files[place] = text
    files[folder / f"metier_{module}" / "__init__.py"] = f'"""The {name} pack."""\n'
    if there := [path for path in files if path.exists()]:
        raise PackError([Fault("the file is there already", path, remedy="choose another folder") for path in there])
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(files)
