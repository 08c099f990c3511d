"""Corpora fetched from those who publish them: which, told what, into which folder. No other machine is asked unless the caller allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier.errors import Fault, InputError, MetierError, nearest
from metier.packs.matching import compile_pattern
from metier.packs.spec import Corpus, Fetching, Pack, Parameter
from metier.progress import SILENT, Progress

__all__ = ["Fetched", "Request", "assignments", "fetch", "fetchable", "fits", "request_of"]


@dataclass(frozen=True, slots=True)
class Request:
    """A fetch whose every part is checked; nobody has been asked yet."""

    pack: Pack
    corpus: Corpus
    plan: Fetching
    values: Mapping[str, Any]
    folder: Path
    """Where the files are to lie: below the project folder."""
    path: str
    """The same, relative to the project folder."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies in the folder after a fetch, of that which was asked for."""

    files: tuple[Path, ...]
    new: int
    """How many of the files were not there before."""


def fetchable(pack: Pack) -> list[Corpus]:
    """Return the corpora that a pack can fetch, in the order of their names."""
    return sorted((corpus for corpus in pack.corpora if corpus.fetch is not None), key=lambda corpus: corpus.name)


def assignments(texts: Iterable[str]) -> dict[str, str]:
    """Return `NAME=VALUE` texts as a mapping. Raises InputError for every text that is none and every name that stands twice."""
    found: dict[str, str] = {}
    faults = []
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name.strip():
            faults.append(Fault(f"{text!r} is no NAME=VALUE", key="set", remedy="for instance --set name=value"))
        elif name.strip() in found:
            faults.append(Fault("is given twice", key=f"set {name.strip()}", remedy="give it once; the values of a list stand with commas between them"))
        else:
            found[name.strip()] = value.strip()
    if faults:
        raise InputError(faults)
    return found


def request_of(pack: Pack, name: str, given: Mapping[str, str], folder: Path, *, root: Path, online: bool = False) -> Request:
    """Check everything that a fetch needs, without asking another machine.

    `given` holds the values of the corpus's parameters as text. `folder` is relative to the project folder `root`, or lies in it.
    Raises InputError with all faults: a corpus that the pack cannot fetch, parameters that are unknown, missing or malformed,
    a folder outside the project, and a fetch that is not allowed to go `online`.
    """
    corpus = _corpus(pack, name)
    plan = corpus.fetch
    if plan is None:
        remedy = f"get your own copy at {corpus.about.url} and name its folder as path; the pack fetches: {_names(pack)}"
        raise InputError(Fault(f"the pack {pack.facts.name!r} reads the corpus {name!r} and does not fetch it", remedy=remedy))
    values, faults = _values(plan, given)
    faults += _folder_faults(folder, root)
    if not online:
        what = f"fetching {name} asks {' and '.join(plan.hosts)} and tells them the values of --set"
        faults.append(Fault(what, key="online", remedy=f"allow it with --online, or get your own copy at {corpus.about.url}"))
    if faults:
        raise InputError(faults)
    place = (root / folder).resolve()
    return Request(pack, corpus, plan, values, place, place.relative_to(root.resolve()).as_posix())


def fetch(request: Request, *, progress: Progress = SILENT) -> Fetched:
    """Fetch the files of a request into its folder, which is made if it is not there.

    Raises InputError where nothing fits what was asked for, and MetierError where a machine does not answer; what was fetched until then is kept.
    """
    name, folder = request.corpus.name, request.folder
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(Fault(f"the folder cannot be made: {error.strerror or error}", request.path, key="to")) from None
    before = {path for path in folder.rglob("*") if path.is_file()}
    files: dict[Path, None] = {}
    progress.start(name, unit="files")
    try:
        for path in request.pack.fetchers[request.plan.fetcher](request.values, folder):
            files[path] = None
            progress.advance(name)
    except OSError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        remedy = f"what was fetched is kept in {request.path}; look at the connection and the values, and run the command again"
        raise MetierError(f"{name} could not be fetched: {reason}\n    -> {remedy}") from None
    progress.finish(name)
    if not files:
        given = ", ".join(f"{key}={value}" for key, value in request.values.items() if value is not None)
        raise InputError(Fault(f"{' and '.join(request.plan.hosts)} have nothing of {name} that fits", key="set", remedy=f"look at the values: {given}"))
    return Fetched(tuple(files), len(files.keys() - before))


def fits(parameter: Parameter, text: str) -> bool:
    """Tell whether a text is a value of a parameter."""
    parts = _parts(text) if parameter.kind == "list" else [text] if text else []
    if not parts or (parameter.kind == "number" and not text.removeprefix("-").isdecimal()):
        return False
    pattern = None if parameter.pattern is None else compile_pattern(parameter.pattern)
    return pattern is None or all(pattern.fullmatch(part) for part in parts)


def _corpus(pack: Pack, name: str) -> Corpus:
    corpus = next((item for item in pack.corpora if item.name == name), None)
    if corpus is None:
        near = nearest(name, [item.name for item in fetchable(pack)])
        remedy = near if near.startswith("valid") else f"{near} the pack fetches: {_names(pack)}"
        raise InputError(Fault(f"the pack {pack.facts.name!r} fetches no {name!r}", remedy=remedy if fetchable(pack) else "it fetches nothing"))
    return corpus


def _names(pack: Pack) -> str:
    return ", ".join(corpus.name for corpus in fetchable(pack)) or "nothing"


def _values(plan: Fetching, given: Mapping[str, str]) -> tuple[dict[str, Any], list[Fault]]:
    known = {parameter.name: parameter for parameter in plan.parameters}
    faults = []
    for name in given:
        if name not in known:
            near = nearest(name, list(known))
            remedy = near if near.startswith("valid") else f"{near} valid: {', '.join(sorted(known))}"
            faults.append(Fault("there is no such parameter", key=f"set {name}", remedy=remedy if known else "it has no parameters"))
    values: dict[str, Any] = {}
    for name, parameter in known.items():
        text = given.get(name, parameter.default)
        if text is None:
            values[name] = None
            if parameter.required:
                faults.append(Fault("is missing", key=f"set {name}", remedy=f"--set {name}=VALUE: {parameter.about}"))
        elif not fits(parameter, text):
            shown = f"; for instance {parameter.examples.match[0]}" if parameter.examples else ""
            faults.append(Fault(f"{text!r} is no value for it", key=f"set {name}", remedy=f"{parameter.about}{shown}"))
        else:
            values[name] = tuple(_parts(text)) if parameter.kind == "list" else int(text) if parameter.kind == "number" else text
    return values, faults


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _folder_faults(folder: Path, root: Path) -> list[Fault]:
    """Return what is wrong with the folder that files are to be fetched into."""
    if not root.is_dir():
        return [Fault("there is no such project folder", root, key="project", remedy="make it with: metier init FOLDER")]
    home, place = root.resolve(), (root / folder).resolve()
    what = remedy = None
    if place == home or not place.is_relative_to(home):
        what, remedy = "is not a folder inside the project", f"name one below {home}, for instance --to data/NAME; sources are read from there"
    elif place.exists() and not place.is_dir():
        what, remedy = "is a file, not a folder", "name another folder"
    elif not place.parent.is_dir():
        what, remedy = "the folder above it is not there", f"check the path, or make {place.parent} first"
    return [Fault(what, folder, key="to", remedy=remedy)] if what else []
