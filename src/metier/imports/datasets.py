"""Other tools' declarations of data as sources of a project, where that can be done; else what stands in the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metier.imports.values import Case

__all__ = ["READERS", "Declared"]

_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_ALPACA = {"instruction": "instruction", "input": "input", "output": "output", "system": "system", "history": "history"}


@dataclass(frozen=True, slots=True)
class Declared:
    """What became of one declaration: its name, a source or None, and what has to be said about it."""

    name: str
    source: dict[str, Any] | None = None
    notes: tuple[str, ...] = field(default=())


def _file(case: Case, folder: Path, name: str) -> str | None:
    """Return the path of a data file or folder as a project names it, None if there is none on this disk."""
    path = folder / name
    if not path.exists():
        return None
    real, root = path.resolve(), case.target.resolve()
    shown = real.relative_to(root).as_posix() if real.is_relative_to(root) else real.as_posix()
    if not real.is_dir():
        return shown
    kinds = sorted({item.suffix for item in real.iterdir() if item.suffix in _SUFFIXES})
    return f"{shown}/*{kinds[0]}" if kinds else None


def _absent(name: str, folder: Path) -> Declared:
    return Declared(
        name, None, (f"{name!r} is no file or folder below {folder}: if it is a data set of a hub, put a copy on this disk and name it under sources",)
    )


def _source(path: str, form: str, columns: Mapping[str, str]) -> dict[str, Any]:
    changed = {key: column for key, column in columns.items() if column and column != key}
    return {"path": path, "format": form, "licence": "not-stated"} | ({"columns": changed} if changed else {})


def _llama_factory(case: Case) -> Iterator[Declared]:
    folder = case.source / str(case.values.get("dataset_dir") or "data")
    wanted = case.values.get("dataset") or []
    names = [part.strip() for part in wanted.split(",")] if isinstance(wanted, str) else [str(item) for item in wanted]
    try:
        known = json.loads((folder / "dataset_info.json").read_bytes())
    except (OSError, ValueError) as error:
        yield Declared(", ".join(names), None, (f"{folder / 'dataset_info.json'} cannot be read ({type(error).__name__}): name the files under sources",))
        return
    for name in names:
        entry = known.get(name) if isinstance(known, dict) else None
        if not isinstance(entry, dict):
            yield Declared(name, None, (f"{name!r} does not stand in {folder / 'dataset_info.json'}",))
        else:
            yield _described(case, folder, name, entry)


def _described(case: Case, folder: Path, name: str, entry: Mapping[str, Any]) -> Declared:
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    if entry.get("ranking") or {"chosen", "rejected", "kto_tag"} & columns.keys():
        return Declared(name, None, (f"{name!r} holds preferences, which are not learnt from",))
    if media := sorted({"images", "videos", "audios"} & columns.keys()):
        return Declared(name, None, (f"{name!r} holds {', '.join(media)}; texts alone are trained on",))
    if not isinstance(entry.get("file_name"), str):
        return _absent(name, folder)
    path = _file(case, folder, entry["file_name"])
    if path is None:
        return _absent(entry["file_name"], folder)
    known = {"file_name", "formatting", "columns", "tags", "ranking"}
    notes = [f"{name}: {key} ({value!r}) has no place in a source" for key, value in entry.items() if key not in known and value not in (None, False)]
    if "tools" in columns:
        notes.append(f"{name}: the column of tools ({columns['tools']!r}) is not read; calls of tools are not taught")
    if entry.get("formatting", "alpaca") != "sharegpt":
        names = {"instruction": "prompt", "input": "query", "output": "response", "system": "system", "history": "history"}
        if not columns.get("response") and columns:
            return Declared(name, None, (f"{name!r} has no column of answers: plain texts are not taught; prepare.generate makes conversations of them",))
        return Declared(name, _source(path, "alpaca", {ours: columns.get(theirs, "") for ours, theirs in names.items()}), tuple(notes))
    return _turns(name, path, columns.get("messages", "conversations"), columns.get("system", ""), tags, notes)


def _turns(name: str, path: str, column: str, system: str, tags: Mapping[str, str], notes: list[str]) -> Declared:
    roles = (tags.get("role_tag", "from"), tags.get("content_tag", "value"))
    speakers = (tags.get("user_tag", "human"), tags.get("assistant_tag", "gpt"))
    if roles == ("role", "content") and speakers == ("user", "assistant"):
        if system:
            notes.append(f"{name}: the column {system!r} with system prompts is not read; put them into the messages")
        return Declared(name, _source(path, "messages", {"messages": column}), tuple(notes))
    if roles == ("from", "value") and set(speakers) <= {"human", "user", "gpt", "chatgpt", "assistant"}:
        return Declared(name, _source(path, "sharegpt", {"conversations": column, "system": system}), tuple(notes))
    return Declared(
        name, None, (f"{name!r} names turns {roles} and speakers {speakers}, which is neither messages nor ShareGPT: rewrite the rows as messages",)
    )


def _axolotl(case: Case) -> Iterator[Declared]:
    for entry in case.value if isinstance(case.value, list) else []:
        if not isinstance(entry, dict):
            yield Declared(str(entry), None, ("this is no declaration of data",))
            continue
        name = str(entry.get("path"))
        files = entry.get("data_files")
        places = [files] if isinstance(files, str) else files if isinstance(files, list) else [name]
        for place in places:
            path = _file(case, case.source, str(place))
            yield _absent(str(place), case.source) if path is None else _axolotl_source(name, path, entry)


def _axolotl_source(name: str, path: str, entry: Mapping[str, Any]) -> Declared:
    kind = entry.get("type")
    used = {"path", "data_files", "type", "ds_type", "field_messages", "message_property_mappings", "message_field_role", "message_field_content"}
    notes = [f"{name}: {key} ({value!r}) has no place in a source" for key, value in entry.items() if key not in used and value is not None]
    if isinstance(kind, dict):
        texts = {key for key in ("system_prompt", "system_format", "format", "no_input_format") if kind.get(key)}
        notes += [f"{name}: the prompt's {key} is not taken: a template of a pack says what a row becomes" for key in sorted(texts)]
        columns = {ours: kind.get(f"field_{ours}") or "" for ours in ("instruction", "input", "output", "system")}
        return Declared(name, _source(path, "alpaca", columns), tuple(notes))
    head = str(kind or "").split(".")[0].split(":")[0]
    if head == "alpaca":
        return Declared(name, _source(path, "alpaca", _ALPACA), tuple(notes))
    if head in ("chat_template", "sharegpt"):
        mapping = entry.get("message_property_mappings") or {}
        role = mapping.get("role") or entry.get("message_field_role") or ("from" if head == "sharegpt" else "role")
        content = mapping.get("content") or entry.get("message_field_content") or ("value" if head == "sharegpt" else "content")
        column = entry.get("field_messages") or ("conversations" if head == "sharegpt" else "messages")
        tags = {"role_tag": role, "content_tag": content}
        if role == "role":
            tags |= {"user_tag": "user", "assistant_tag": "assistant"}
        return _turns(name, path, column, "", tags, notes)
    return Declared(name, None, (f"rows of the type {kind!r} are no conversations that are read; write them as messages, alpaca or ShareGPT",))


def _soup(case: Case) -> Iterator[Declared]:
    form = case.values.get("data.format") or "auto"
    wanted = case.values.get("data.train")
    for name in wanted if isinstance(wanted, list) else [wanted] if wanted else []:
        path = _file(case, case.source, str(name))
        if path is None:
            yield _absent(str(name), case.source)
        elif form in ("alpaca", "sharegpt", "auto"):
            yield Declared(str(name), _source(path, form, {}))
        elif form == "chatml":
            yield Declared(str(name), _source(path, "messages", {}))
        else:
            yield Declared(str(name), None, (f"rows of the format {form!r} are no conversations that are read; write them as messages, alpaca or ShareGPT",))


READERS: Mapping[str, Callable[[Case], Iterator[Declared]]] = {"llama-factory": _llama_factory, "axolotl": _axolotl, "soup": _soup}
