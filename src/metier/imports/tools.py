"""What is known of other tools' settings files: their keys as data, and which tool a file is told to be from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml

from metier.config import Document
from metier.errors import ConfigError, Fault, InputError, nearest

__all__ = ["TOOLS", "Group", "Setting", "Tool", "load_tool", "told"]

TOOLS = ("llama-factory", "axolotl", "soup")
_ENOUGH = 2
"""Keys of a tool that a file has to have before it is taken for one of that tool's."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A key with a place here: the setting, the name of the conversion, and what is different about the value, if anything."""

    conversion: str
    to: str | None = None
    means: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Keys without a place here, and why: what is done anyway (`same`), or what is not (`why`) and which setting is nearest."""

    text: str
    same: bool
    nearest: str | None = None
    only: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool: its title, the keys it is told by, what it does where a file keeps silent, and every key that is known of it."""

    name: str
    title: str
    told_by: frozenset[str]
    defaults: Mapping[str, Any]
    settings: Mapping[str, Setting]
    groups: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """Every key that is known, with dots inside sections."""
        return sorted({*self.settings, *self.groups})

    def group(self, key: str, value: Any) -> Group | None:
        """Return what is known of a key without a place here, for a value."""
        return next((group for group in self.groups.get(key, ()) if group.only is None or value in group.only), None)


@cache
def load_tool(name: str) -> Tool:
    """Return what is known of a tool. Raises InputError for a name that is none."""
    if name not in TOOLS:
        raise InputError(f"--from: {name!r} is no tool whose files are read\n    -> {nearest(name, TOOLS)}")
    known = yaml.safe_load(resources.files("metier.imports").joinpath(f"data/{name}.yaml").read_text(encoding="utf-8"))
    settings = {key: Setting(entry["as"], entry.get("to"), entry.get("means")) for key, entry in known["settings"].items()}
    groups: dict[str, tuple[Group, ...]] = {}
    for entry in known["groups"]:
        only = tuple(entry["only"]) if "only" in entry else None
        group = Group(entry.get("same") or entry["why"], "same" in entry, entry.get("nearest"), only)
        for key in entry["keys"]:
            groups[key] = (*groups.get(key, ()), group)
    return Tool(name, known["title"], frozenset(known["told_by"]), known["defaults"], settings, groups)


def told(document: Document) -> Tool:
    """Return the tool that a file is from, by its keys. Raises ConfigError if they do not tell, or if it is this project's own kind."""
    value = document.value
    if not isinstance(value, dict) or not value:
        raise ConfigError(Fault("the file holds no settings", document.path, remedy="name the YAML file of a training"))
    if "metier" in value:
        raise ConfigError(Fault("this is a project file of Metier already", document.path, remedy="use it as it is: metier run"))
    found = {name: len(load_tool(name).told_by & value.keys()) for name in TOOLS}
    if isinstance(value.get("data"), dict) and "base" in value:
        found["soup"] += _ENOUGH
    best = max(found, key=lambda name: found[name])
    if found[best] < _ENOUGH or list(found.values()).count(found[best]) > 1:
        keys = ", ".join(sorted(map(str, value))[:8])
        raise ConfigError(Fault(f"its keys do not tell which tool it is for ({keys})", document.path, remedy=f"say it: --from {', or --from '.join(TOOLS)}"))
    return load_tool(best)
