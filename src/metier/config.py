"""Settings: strict YAML with line numbers. Every fault of a file is reported at once, with the nearest valid key.

Each room declares its own small settings class (a subclass of `Settings`) beside the code that reads it; this module only
knows how to read a file into such classes and how to say what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from metier.digest import digest_of
from metier.errors import ConfigError, Fault, InputError, nearest

__all__ = ["Document", "Settings", "load_yaml", "parse", "settings_digest"]

Path_ = tuple[str | int, ...]

_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+][0-9]+")
"""A number such as 1e-4, which is text in YAML 1.1 and a number in YAML 1.2 (10.3.2) and to everybody who writes one. Without a sign, as in
1E50, it stays text: codes look like that."""


class Settings(BaseModel):
    """Base of all settings: frozen, strict types, unknown keys refused, the docstring under a field describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


SettingsType = TypeVar("SettingsType", bound=Settings)


class Document:
    """A YAML file as plain values, with the line of every key and item; `files` names the file of those that another one gave."""

    def __init__(self, path: Path, value: Any, lines: Mapping[Path_, int], files: Mapping[Path_, Path] | None = None) -> None:
        self.path = path
        self.value = value
        self.lines = lines
        self.files = files or {}

    def over(self, lower: Document) -> Document:
        """Return the two as one: a mapping of this file is laid over the other's key by key, anything else stands in its place."""
        lines, files = dict(lower.lines), {location: lower.files.get(location, lower.path) for location in lower.lines}
        value = _laid(self.value, lower.value, (), lines)
        lines |= self.lines
        kept = {location: file for location, file in files.items() if location in lines and location not in self.lines}
        return Document(self.path, value, lines, kept)

    def line(self, location: Path_) -> int | None:
        """Return the line (from 1) of a key path, or of the nearest enclosing one."""
        for end in range(len(location), -1, -1):
            if (found := self.lines.get(location[:end])) is not None:
                return found
        return None

    def fault(self, location: Path_, what: str, remedy: str | None = None) -> Fault:
        """Return a fault that points at a key path of this file."""
        known = next((location[:end] for end in range(len(location), -1, -1) if location[:end] in self.lines), ())
        return Fault(what, path=self.files.get(known, self.path), line=self.line(location), key=_dotted(location) or None, remedy=remedy)


def _laid(upper: Any, lower: Any, location: Path_, lines: dict[Path_, int]) -> Any:
    """Return `upper` over `lower`, and take the lines of what is covered out of `lines`, which are those of `lower`."""
    if isinstance(upper, dict) and isinstance(lower, dict):
        return {**lower, **{key: _laid(value, lower.get(key), (*location, key), lines) for key, value in upper.items()}}
    for known in [known for known in lines if len(known) > len(location) and known[: len(location)] == location]:
        del lines[known]
    return upper


def _dotted(location: Path_) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Reader:
    """Builds plain values from YAML nodes, notes lines and finds duplicate keys."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Path_, int] = {}
        self.faults: list[Fault] = []
        self._scalars = yaml.SafeLoader("")

    def build(self, node: yaml.Node, location: Path_) -> Any:
        self.lines.setdefault(location, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*location, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, location)
        if isinstance(node, yaml.ScalarNode) and node.style is None and _EXPONENT.fullmatch(node.value):
            return float(node.value)
        return self._scalars.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, location: Path_) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            line = key_node.start_mark.line + 1
            if key in values:
                self.faults.append(Fault(f"the key {key!r} stands twice", self.path, line, _dotted((*location, key)), "keep one of them"))
            self.lines[(*location, key)] = line
            values[key] = self.build(value_node, (*location, key))
        return values


def load_yaml(path: Path, *, error: type[InputError] = ConfigError) -> Document:
    """Read a YAML file of plain values. Raises `error` for a missing file, bad encoding, bad syntax or duplicate keys."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error(Fault("there is no such file", path, remedy="check the path, or write one with: metier init")) from None
    except IsADirectoryError:
        raise error(Fault("this is a folder, not a file", path, remedy="name the YAML file itself")) from None
    except UnicodeDecodeError as fault:
        raise error(Fault(f"not UTF-8 (byte {fault.start})", path, remedy="save the file as UTF-8")) from None
    except OSError as fault:
        raise error(Fault(f"cannot be read: {fault.strerror}", path)) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        problem = getattr(fault, "problem", None) or str(fault)
        raise error(Fault(f"not valid YAML: {problem}", path, mark.line + 1 if mark else None)) from None
    reader = _Reader(path)
    try:
        value = {} if node is None else reader.build(node, ())
    except (yaml.YAMLError, ValueError) as fault:
        raise error(Fault(f"not valid YAML: {fault}", path)) from None
    if reader.faults:
        raise error(reader.faults)
    return Document(path, value, reader.lines)


def parse(document: Document, settings: type[SettingsType], location: Path_ = (), *, error: type[InputError] = ConfigError) -> SettingsType:
    """Read the part of a document at `location` into a settings class. Raises `error` with every fault found."""
    value = document.value
    for part in location:
        value = value[part]
    try:
        # JSON mode lets YAML lists stand for tuples; types stay strict otherwise ("3" is no number).
        return settings.model_validate_json(_as_json(value))
    except ValidationError as fault:
        raise error(_explained(document, settings, location, fault.errors())) from None


def _as_json(value: Any) -> bytes:
    import json

    return json.dumps(value, default=str, ensure_ascii=False).encode()


def _explained(document: Document, settings: type[Settings], base: Path_, items: Sequence[Any]) -> list[Fault]:
    """Return the faults, one a value: where it may be of several forms, what each of them asks for stands in one line."""
    together: dict[Any, list[Any]] = {}
    for number, item in enumerate(items):
        location = _place(document, base, item)
        branch = item["type"] not in ("missing", "extra_forbidden") and len(location) < len(base) + len(item["loc"])
        together.setdefault(location if branch else number, []).append(item)
    return [_explain(document, settings, base, found) for found in together.values()]


def _place(document: Document, base: Path_, item: Any) -> Path_:
    location: Path_ = (*base, *item["loc"])
    # Pydantic names the branch of a union in the location; a key path has only keys and indices of the file.
    while location not in document.lines and len(location) > len(base) and item["type"] != "missing":
        location = location[:-1]
    return location


def _explain(document: Document, settings: type[Settings], base: Path_, items: Sequence[Any]) -> Fault:
    item, location = items[0], _place(document, base, items[0])
    kind = item["type"]
    if kind == "extra_forbidden":
        return document.fault(location, "unknown key", nearest(str(location[-1]), _fields_at(settings, item["loc"][:-1])))
    if kind == "missing":
        return document.fault(location, "this key is required and missing")
    message = ", or ".join(dict.fromkeys(_lowered(str(found["msg"]).removeprefix("Value error, ")) for found in items))
    given = item.get("input")
    shown = "" if isinstance(given, dict | list) or kind == "value_error" else f" (it is {given!r})"
    return document.fault(location, f"{message}{shown}")


def _lowered(message: str) -> str:
    return f"{message[0].lower()}{message[1:]}"


def _fields_at(settings: type[Settings], location: tuple[str | int, ...]) -> list[str]:
    current: Any = settings
    for part in location:
        if isinstance(part, int):
            continue
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            continue
        current = _settings_inside(field.annotation) or current
    return list(current.model_fields)


def _settings_inside(annotation: Any) -> type[Settings] | None:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    for part in getattr(annotation, "__args__", ()):
        if (found := _settings_inside(part)) is not None:
            return found
    return None


def settings_digest(settings: Settings) -> str:
    """Return the digest of settings as they take part in the identity of a stage."""
    return digest_of(settings.model_dump(mode="json"))
