"""The commented project file of an import: every setting with the key it came from, and everything that was not taken over with the reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metier.config import Settings
from metier.errors import ConfigError, Fault
from metier.imports.convert import Finding, Imported
from metier.project import ProjectSettings, load_project
from metier.store import write_atomically

__all__ = ["NO_PACK", "project_text", "write_project"]

NO_PACK = "none-chosen"
"""What stands where no pack was named: no pack has that name, and running says which there are."""

_WIDTH = 150


def write_project(imported: Imported, out: Path, *, name: str, pack: str | None) -> None:
    """Write the project file and load it again. Raises ConfigError if there is a file already or a name is none, StoreError if it cannot be written."""
    if out.exists():
        raise ConfigError(Fault("there is a file already", out, remedy="name another with --out; nothing is written over"))
    text = project_text(imported, name=name, pack=pack)
    write_atomically(out, text.encode())
    try:
        load_project(out)
    except ConfigError:
        out.unlink()
        raise


def project_text(imported: Imported, *, name: str, pack: str | None) -> str:
    """Return the text of the project file."""
    parts = (_head(imported), _top(imported, name, pack), _sources(imported), _sections(imported), _rest(imported))
    return "\n".join(line for part in parts for line in part) + "\n"


def _comment(text: str, indent: str = "") -> Iterator[str]:
    line = f"{indent}#"
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH and len(line) > len(indent) + 1:
            yield line
            line = f"{indent}#  "
        line += f" {word}"
    yield line


def _head(imported: Imported) -> Iterator[str]:
    yield from _comment(f"A Metier project, made from {imported.path.name}, a file of {imported.tool.title}. What was not taken over stands at the end.")
    yield from _comment(
        "Besides what is set here, a tenth of the records is held out for the test and a tenth for validation (prepare.split), identifiers of people are "
        "looked for and replaced (prepare.deidentify), and near-duplicates leave (prepare.dedup)."
    )


def _top(imported: Imported, name: str, pack: str | None) -> Iterator[str]:
    yield "metier: 1"
    yield f"project: {json.dumps(name)}"
    yield f"pack: {pack or NO_PACK}" + ("" if pack else "                     # choose one: metier packs list")
    if "base" in imported.settings:
        yield f"base: {_value(imported.settings['base'])}  # {imported.origins['base']}"


def _sources(imported: Imported) -> Iterator[str]:
    yield "sources:"
    if not imported.sources:
        yield from _comment("no declaration of data could be taken over; this line only stands for yours", "  ")
    for source in imported.sources or [{"path": "data/*.jsonl", "licence": "not-stated"}]:
        yield f"  - path: {_value(source['path'])}"
        for key, value in source.items():
            if key != "path":
                note = "  # the terms under which the data may be used: state them, and `basis`" if key == "licence" else ""
                yield f"    {key}: {_value(value)}{note}"


def _value(value: Any) -> str:
    """Return a value in JSON, which YAML reads as it is; but 1e-05 is text in YAML 1.1, so such numbers get a point."""
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _sections(imported: Imported) -> Iterator[str]:
    tree: dict[str, Any] = {}
    for place, value in imported.settings.items():
        inner = tree
        *path, last = place.split(".")
        for part in path:
            inner = inner.setdefault(part, {})
        inner[last] = (value, imported.origins[place], _means(imported, place))
    tree.pop("base", None)
    # In the order of the settings themselves, whatever order the other tool's file had.
    yield from _branch(tree, ProjectSettings, "")


def _means(imported: Imported, place: str) -> str:
    return next((item.note for item in imported.findings if item.to == place and item.note), "")


def _branch(tree: Mapping[str, Any], settings: type[Settings] | None, indent: str) -> Iterator[str]:
    order = list(getattr(settings, "model_fields", {}))
    for key in sorted(tree, key=lambda name: order.index(name) if name in order else len(order)):
        item = tree[key]
        if isinstance(item, tuple):
            value, origin, means = item
            if means and not means.endswith("default"):
                yield from _comment(means, indent)
            yield f"{indent}{key}: {_value(value)}  # {origin}"
        else:
            yield f"{indent}{key}:"
            default = getattr(settings, "model_fields", {}).get(key)
            inner = type(default.default) if default is not None and isinstance(default.default, Settings) else None
            yield from _branch(item, inner, f"{indent}  ")


def _rest(imported: Imported) -> Iterator[str]:
    titles = {
        "not taken": "Not taken over: there is no such setting here, or the value means something else.",
        "unknown": f"Unknown: no keys of {imported.tool.title} that are known here.",
        "same": "Done anyway, without a setting.",
    }
    for state, title in titles.items():
        found = [item for item in imported.findings if item.state == state]
        if found:
            yield ""
            yield from _comment(title)
            for item in found:
                yield from _comment(f"- {item}")
    if empty := imported.of("empty"):
        yield ""
        yield from _comment(f"Without a value: {_names(empty)}")


def _names(found: list[Finding]) -> str:
    return ", ".join(item.key for item in found)
