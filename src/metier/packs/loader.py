"""Reads the folder of a pack: one YAML file for each kind of rule. Every fault of every file is reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import regex

from metier.config import Document, Settings, load_yaml, parse
from metier.digest import digest_file, digest_of
from metier.errors import Fault, PackError, nearest
from metier.packs.matching import compile_pattern
from metier.packs.render import compile_template
from metier.packs.spec import Control, Corpus, GuardRule, Identifier, OnDemand, Pack, PackFacts, Phrase, QualityRule, SyntheticSet, TaskSpec, Template, Term

__all__ = ["FILES", "folder_digest", "load_folder", "read_list"]

FILES: Mapping[str, tuple[str, type[Settings]]] = {
    "identifiers.yaml": ("identifiers", Identifier),
    "lexicon.yaml": ("lexicon", Term),
    "quality.yaml": ("quality", QualityRule),
    "templates.yaml": ("templates", Template),
    "evaluation.yaml": ("tasks", TaskSpec),
    "controls.yaml": ("controls", Control),
    "guard.yaml": ("guard", GuardRule),
    "augment.yaml": ("phrases", Phrase),
    "synthetic.yaml": ("synthetic", SyntheticSet),
    "corpora.yaml": ("corpora", Corpus),
}
"""File name -> the key of its list and the type of the list's items."""

_FACTS = "pack.yaml"
_NAMED = ("validator", "parser", "reader", "fetcher")
"""Keys that name a function of the pack."""

SettingsType = TypeVar("SettingsType", bound=Settings)


def load_folder(
    folder: Path,
    *,
    validators: Mapping[str, Callable[[str], bool]] | None = None,
    parsers: Mapping[str, Callable[[str], Any]] | None = None,
    scorers: Mapping[str, Callable[..., float]] | None = None,
    lexicons: Mapping[str, Callable[[], Iterable[Term]]] | None = None,
    readers: Mapping[str, Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]] | None = None,
    fetchers: Mapping[str, Callable[[Mapping[str, Any], Path], Iterable[Path]]] | None = None,
) -> Pack:
    """Read a pack from its folder and the tables of functions that its YAML files name.

    `lexicons` and `fetchers` are called only when somebody asks for one by its name.

    Raises PackError with all faults of all files: syntax, unknown keys, missing keys, patterns and templates that do not compile,
    names of functions that are in no table, YAML files that are not part of a pack.
    """
    tables: dict[str, Any] = {
        "validators": validators or {},
        "parsers": parsers or {},
        "scorers": scorers or {},
        "lexicons": lexicons or {},
        "readers": readers or {},
        "fetchers": fetchers or {},
    }
    faults = _stray_files(folder)
    facts: PackFacts | None = None
    lists: dict[str, Any] = {}
    try:
        facts = parse(load_yaml(folder / _FACTS, error=PackError), PackFacts, error=PackError)
    except PackError as fault:
        faults.extend(fault.faults)
    for name, (key, kind) in FILES.items():
        if not (folder / name).is_file():
            lists[key] = ()
            continue
        document, items, found = read_list(folder / name, key, kind)
        faults.extend(found)
        lists[key] = tuple(item for _, item in items)
        for index, item in items:
            faults.extend(_reference_faults(document, (key, index), item, {name: tables[f"{name}s"] for name in _NAMED}))
    if faults or facts is None:
        raise PackError(faults)
    on_demand = OnDemand(tables["lexicons"], tables["readers"], tables["parsers"], tables["fetchers"])
    digest = folder_digest(folder)
    return Pack(facts=facts, folder=folder, digest=digest, validators=tables["validators"], scorers=tables["scorers"], on_demand=on_demand, **lists)


def read_list(path: Path, key: str, kind: type[SettingsType]) -> tuple[Document, list[tuple[int, SettingsType]], list[Fault]]:
    """Read a YAML file whose top level is a mapping with the one list `key`.

    Returns the document, the items that are valid with their index, and the faults of the others. A file that is no YAML gives an
    empty document and its fault.
    """
    try:
        document = load_yaml(path, error=PackError)
    except PackError as fault:
        return Document(path, {}, {}), [], list(fault.faults)
    if not isinstance(document.value, dict) or not isinstance(document.value.get(key, []) or [], list):
        return document, [], [document.fault((), f"the file is not a mapping with the list {key!r}", f"begin the file with {key}:")]
    faults = [document.fault((name,), "unknown key", nearest(name, [key])) for name in document.value if name != key]
    items: list[tuple[int, SettingsType]] = []
    for index in range(len(document.value.get(key) or [])):
        try:
            items.append((index, parse(document, kind, (key, index), error=PackError)))
        except PackError as fault:
            faults.extend(fault.faults)
    return document, items, faults


def folder_digest(folder: Path) -> str:
    """Return the digest over the path and content of every file of a pack, caches of the interpreter left out."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc")
    return digest_of({path.relative_to(folder).as_posix(): digest_file(path) for path in files})


def _stray_files(folder: Path) -> list[Fault]:
    if not folder.is_dir():
        raise PackError(Fault("there is no such folder", folder, remedy="write a pack with: metier packs new NAME"))
    known = [_FACTS, *FILES]
    return [Fault("not a file of a pack", path, remedy=nearest(path.name, known)) for path in sorted(folder.glob("*.y*ml")) if path.name not in known]


def _reference_faults(
    document: Document,
    location: tuple[str | int, ...],
    item: Settings,
    tables: Mapping[str, Mapping[str, Any]],
) -> list[Fault]:
    faults = []
    pattern = getattr(item, "pattern", None)
    if pattern is not None:
        try:
            compiled = compile_pattern(pattern)
        except regex.error as fault:
            faults.append(document.fault((*location, "pattern"), f"the pattern is not valid: {fault}"))
        else:
            group = getattr(item, "group", 0)
            if not (group in compiled.groupindex if isinstance(group, str) else 0 <= group <= compiled.groups):
                faults.append(document.fault((*location, "group"), f"the pattern has no group {group!r}"))
    for key, table in tables.items():
        name = getattr(item, key, None)
        if name is not None and name not in table:
            faults.append(document.fault((*location, key), f"{name!r} is not in the pack's table of {key}s", nearest(name, list(table))))
    if isinstance(item, Corpus) and item.fetch is not None:
        faults += _reference_faults(document, (*location, "fetch"), item.fetch, tables)
        for index, parameter in enumerate(item.fetch.parameters):
            faults += _reference_faults(document, (*location, "fetch", "parameters", index), parameter, tables)
    return faults + _template_faults(document, location, item)


def _template_faults(document: Document, location: tuple[str | int, ...], item: Settings) -> list[Fault]:
    texts: list[tuple[tuple[str | int, ...], str | None]] = []
    if isinstance(item, Template):
        texts = [(("messages", index, "content"), message.content) for index, message in enumerate(item.messages)]
    if isinstance(item, TaskSpec):
        texts = [(("doc_to_text",), item.doc_to_text), (("doc_to_target",), item.doc_to_target)]
    faults: list[Fault] = []
    for place, text in texts:
        try:
            compile_template(text or "")
        except PackError as fault:
            faults.extend(document.fault((*location, *place), found.what, found.remedy) for found in fault.faults)
    return faults
