"""A settings file of another tool turned into settings of a project: each key ends in a finding, none disappears."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from metier.config import Document, load_yaml
from metier.errors import nearest
from metier.imports.datasets import READERS, Declared
from metier.imports.tools import Tool, load_tool, told
from metier.imports.values import CONVERSIONS, Case, NoPlaceError, Same
from metier.models.methods import METHODS
from metier.project import ProjectSettings

__all__ = ["Finding", "Imported", "State", "convert"]

State: TypeAlias = Literal["taken", "same", "not taken", "unknown", "empty"]
"""Taken over; asks for what is done anyway; has no place here; is no key of that tool; has no value."""

_SECRET = re.compile(r"token$|api_key|secret|password", re.IGNORECASE)
_NEEDED = {"metier": 1, "project": "x", "pack": "x", "sources": [{"path": "x", "licence": "x"}]}
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one key: its line, its value as it may be shown, the setting it went to, and what has to be said."""

    key: str
    state: State
    line: int | None = None
    value: str = ""
    to: str | None = None
    note: str = ""

    def __str__(self) -> str:
        place = "" if self.line is None else f"line {self.line}: "
        goal = f" -> {self.to}" if self.to else ""
        note = f": {self.note}" if self.note else ""
        return f"{place}{self.key}{f' ({self.value})' if self.value else ''}{goal}{note}"


@dataclass(slots=True)
class Imported:
    """A converted file: the settings by dotted path with the key each came from, the sources, and a finding for every key."""

    tool: Tool
    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    sources: list[dict[str, Any]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def of(self, *states: State) -> list[Finding]:
        """Return the findings of these states, in the order of the file."""
        return [item for item in self.findings if item.state in states]


def convert(path: Path, target: Path, *, tool: str | None = None) -> Imported:
    """Read a file of another tool for a project file in the folder `target`. `tool` names it; else its keys tell.

    Raises ConfigError for a file that cannot be read or told, InputError for a name that is no tool.
    """
    document = load_yaml(path)
    known = told(document) if tool is None else load_tool(tool)
    values = dict(_flat(document.value, known)) if isinstance(document.value, dict) else {}
    imported = Imported(known, path)
    source = path.resolve().parent
    declared = list(READERS[known.name](Case(values.get("datasets"), values, source, target)))
    imported.sources = [item.source for item in declared if item.source is not None]
    for key, value in values.items():
        imported.findings.append(_finding(imported, document, key, Case(value, values, source, target)))
    for key, value in known.defaults.items():
        # With a colon: a default gives way to what another key has set.
        if values.get(key) is None and (place := known.settings[key].to) is not None and place not in imported.settings:
            case = Case(value, {**known.defaults, **values}, source, target)
            imported.findings.append(_taken(imported, key, case, None, f"{known.title}'s default"))
    _drop_unread(imported)
    for item in declared:
        _declare(imported, item)
    return imported


def _drop_unread(imported: Imported) -> None:
    """Take out settings that the method does not read, and say so: the project file would be refused."""
    method = str(imported.settings.get("training.method", "lora"))
    for name in ("rank", "alpha", "dropout", "targets"):
        key = f"adaptation.{name}"
        place = f"training.{key}"
        if place in imported.settings and key not in METHODS[method].reads:
            del imported.settings[place]
            origin = imported.origins.pop(place)
            was = next((item for item in imported.findings if item.to == place), None)
            note = f"the method {method!r} has no {name}"
            if was is None:
                imported.findings.append(Finding(origin, "not taken", None, "", None, note))
            else:
                imported.findings[imported.findings.index(was)] = replace(was, state="not taken", to=None, note=note)


def _flat(value: Mapping[str, Any], tool: Tool, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield keys with dots where the tool's own keys have sections; other mappings are values."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        inner = any(known.startswith(f"{name}.") for known in tool.keys)
        if inner and isinstance(item, dict) and item:
            yield from _flat(item, tool, f"{name}.")
        else:
            yield name, item


def _shown(key: str, value: Any) -> str:
    if _SECRET.search(key) and value is not None:
        return "a secret, not repeated"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _finding(imported: Imported, document: Document, key: str, case: Case) -> Finding:
    tool, line = imported.tool, document.line(tuple(key.split(".")))
    shown = _shown(key, case.value)
    if key not in tool.settings and key not in tool.groups:
        note = f"no key of {tool.title} that is known here, and nothing was made of it; {nearest(key, tool.keys) if _near(key, tool) else 'look it up'}"
        return Finding(key, "unknown", line, shown, None, note)
    if case.value is None or case.value == "":
        return Finding(key, "empty", line, "", None, "no value")
    if key in tool.settings:
        return _taken(imported, key, case, line)
    group = tool.group(key, case.value)
    if group is None:
        return Finding(key, "not taken", line, shown, None, "this value has no place here")
    if case.value is False and not group.same:
        return Finding(key, "same", line, shown, None, "off, and there is none here")
    note = group.text + (f"; nearest: {group.nearest}" if group.nearest else "")
    return Finding(key, "same" if group.same else "not taken", line, shown, None, note)


def _near(key: str, tool: Tool) -> bool:
    return nearest(key, tool.keys).startswith("did you mean")


def _taken(imported: Imported, key: str, case: Case, line: int | None, why: str = "") -> Finding:
    setting, shown = imported.tool.settings[key], _shown(key, case.value)
    if setting.conversion == "datasets":
        none = not imported.sources
        return Finding(key, "not taken" if none else "taken", line, shown, None if none else "sources", "what became of each data set is said below")
    try:
        value = CONVERSIONS[setting.conversion](case)
    except Same as same:
        return Finding(key, "same", line, shown, None, str(same))
    except NoPlaceError as fault:
        note = f"{fault}" + (f"; nearest: {setting.to}" if setting.to else "")
        return Finding(key, "not taken", line, shown, None, note)
    place = str(setting.to)
    if (fault_text := _refused(place, value)) is not None:
        return Finding(key, "not taken", line, shown, None, f"{place} does not take {value!r} in this version ({fault_text})")
    before = imported.settings.get(place)
    refines = place == "training.method" and before == "lora"
    if before is not None and before != value and not refines:
        if place == "training.method" and value == "lora":
            return Finding(key, "same", line, shown, None, f"{before} ({imported.origins[place]}) is a kind of it")
        return Finding(key, "not taken", line, shown, None, f"{place} is {before!r} already ({imported.origins[place]})")
    origin = f"{key}, {why}" if why else key
    imported.origins[place] = f"{imported.origins[place]}, {origin}" if before is not None else origin
    imported.settings[place] = value
    notes = [why, setting.means or ""]
    if case.value == "auto" and setting.conversion == "targets":
        notes.append("there 'auto' leaves the choice to PEFT, which takes these for most architectures")
    return Finding(key, "taken", line, shown, place, "; ".join(filter(None, notes)))


def _refused(place: str, value: Any) -> str | None:
    """Return why a setting does not take a value, None if it does: the project file's own checks decide."""
    nested: Any = value
    for part in reversed(place.split(".")):
        nested = {part: nested}
    try:
        ProjectSettings.model_validate_json(json.dumps({**_NEEDED, **nested}))
    except ValidationError as fault:
        return "; ".join(str(error["msg"]) for error in fault.errors())
    return None


def _declare(imported: Imported, declared: Declared) -> None:
    if declared.source is not None:
        note = "state its licence and basis: they are not in the file"
        imported.findings.append(Finding(f"data set {declared.name}", "taken", None, "", f"sources: {declared.source['path']}", note))
    imported.findings += [Finding(f"data set {declared.name}", "not taken", None, "", None, note) for note in declared.notes]
