"""Writes the reference pages from the code, as a hook of mkdocs: what is not written by hand cannot go stale."""

from __future__ import annotations

import contextlib
import inspect
import re
import typing
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic_core import PydanticUndefined

from metier import errors, packs, privacy
from metier.cli.main import app
from metier.config import Settings
from metier.deploy.forms import holders
from metier.models.methods import METHODS
from metier.packs.loader import FILES
from metier.packs.spec import PackFacts
from metier.project import ProjectSettings
from metier.training.settings import ObjectiveSettings
from metier.training.support import UNLABELLED

__all__ = ["on_files", "pages"]

MODULES = (
    "flow",
    "project",
    "sources",
    "prepare",
    "evaluation",
    "compliance",
    "registry",
    "audit",
    "privacy",
    "packs",
    "engines",
    "artifacts",
    "events",
    "store",
    "records",
    "progress",
    "testing",
)
"""Modules whose public names the Python reference lists; `training` and `models` load torch and are described in the guides."""

_NOTE = "*This page is written from the code when the documentation is built.*"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference pages to the site."""
    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def pages() -> dict[str, str]:
    """Return the reference pages by name, as Markdown."""
    writers = {"settings": _settings, "cli": _commands, "packs": _packs, "identifiers": _identifiers, "errors": _errors, "python": _python, "methods": _methods}
    return {name: "\n".join([*writer(), ""]) for name, writer in writers.items()}


def _settings() -> Iterator[str]:
    yield from (
        "# Project file",
        "",
        _NOTE,
        "",
        "Every key of `metier.yaml`, with type and default. An unknown key is refused, with the nearest valid one.",
        "",
    )
    yield from _section(ProjectSettings, "")


def _section(settings: type[Settings], path: str) -> Iterator[str]:
    yield from (f"## {path or 'Top level'}", "", _first(settings), "", "| key | type | default | meaning |", "|---|---|---|---|")
    inner: list[tuple[type[Settings], str]] = []
    for name, field in settings.model_fields.items():
        below = _nested(field.annotation)
        meaning = field.description or (_first(below) if below else "")
        if below is not None:
            several = typing.get_origin(field.annotation) is tuple
            place = f"{path}.{name}" if path else name
            inner.append((below, f"{place}[]" if several else place))
            meaning += f" See [{inner[-1][1]}](#{_anchor(inner[-1][1])})."
        yield f"| `{name}` | {_type(field.annotation)} | {_default(field.default)} | {_cell(meaning)} |"
    yield ""
    for below, place in inner:
        yield from _section(below, place)


def _anchor(title: str) -> str:
    """The anchor that the toc extension gives a heading."""
    return "".join(char for char in title.lower() if char.isalnum() or char in "-_")


def _nested(annotation: Any) -> type[Settings] | None:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _nested(part)) is not None), None)


def _type(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), [part for part in typing.get_args(annotation) if part is not Ellipsis]
    if origin is typing.Literal:
        return " or ".join(f"`{part}`" for part in parts)
    if origin is tuple:
        return f"list of {_type(parts[0])}" if len(set(parts)) == 1 else "list of " + ", ".join(map(_type, parts))
    if origin is typing.Annotated:
        return _type(parts[0])
    if origin is dict:
        return f"mapping of {_type(parts[0])} to {_type(parts[1])}"
    if parts:
        return " or ".join(_type(part) for part in parts)
    names = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "anything"}
    return names.get(annotation, "section" if _nested(annotation) else str(annotation))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, Settings):
        return "its defaults"
    if isinstance(value, tuple):
        return "`[" + ", ".join(str(item) for item in value) + "]`"
    plain = {True: "true", False: "false", None: "null", "": "''"}
    return f"`{plain[value] if isinstance(value, bool | str | None) and value in plain else value}`"


def _methods() -> Iterator[str]:
    yield from ("# Support matrix", "", _NOTE, "")
    yield "What goes together is data (`metier.models.methods.METHODS`); what does not is refused before a model is loaded. Every method trains on packed"
    yield "rows, in one process or several with the same numbers, resumes exactly, and teaches answers and labels privately where that is asked for."
    yield "Experts that do not share a batch are served in lanes of their own."
    yield ""
    yield "Every method teaches answers and texts on decoders, and labels, spans, numbers and pairs on decoders and on encoders built like BERT. An encoder"
    yield "whose layers are built otherwise is refused where a method finds no place in them, before its weights are read, with the method to use."
    yield ""
    head = [
        "method",
        "learning rate",
        "for labels",
        "for labels on encoders",
        "base packed to four bits",
        "`objectives.start`",
        "`objectives.ewc`",
        "ranks by layer",
    ]
    head += ["several projects together", "answers served in one batch", "exported as", "source"]
    yield from (f"| {' | '.join(head)} |", "|---" * len(head) + "|")
    for name, facts in METHODS.items():
        reads = ("adaptation.ranks" in facts.reads, "adaptation.joint" in facts.reads)
        marks = (name == "qlora", facts.measured, facts.moves, *reads, facts.low_rank)
        rates = f"{facts.learning_rate:g} | {facts.rate_for_labels(encoder=False):g} | {facts.rate_for_labels(encoder=True):g}"
        yield f"| `{name}` | {rates} | {' | '.join('yes' if mark else '' for mark in marks)} | {', '.join(holders(name))} | {_cell(facts.source)} |"
    yield from ("", "Not where labels are taught:", "", "| key | why | instead |", "|---|---|---|")
    for item in UNLABELLED:
        section = "objectives" if item.key in ObjectiveSettings.model_fields else "replay"
        yield f"| `{section}.{item.key}` | {_cell(item.why)} | {_cell(item.instead)} |"


def _commands() -> Iterator[str]:
    root = typer.main.get_command(app)
    yield from ("# Command line", "", _NOTE, "", (root.help or "").strip(), "")
    yield from ("Exit codes: 0 done, 1 a gate said no, 2 wrong input, 3 stopped and resumable, 70 a bug of Metier.", "")
    yield from _group(root, "metier")


def _group(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        full = f"{path} {name}"
        if hasattr(command, "commands"):
            yield from _group(command, full)
            continue
        yield from (f"## {full}", "", " ".join((command.help or "").split()), "")
        rows = [_parameter(item) for item in command.params if not getattr(item, "hidden", False)]
        if rows:
            yield from ("| argument or option | default | meaning |", "|---|---|---|", *rows, "")


def _parameter(item: Any) -> str:
    if hasattr(item, "is_flag"):
        kind = item.metavar or ("" if item.is_flag else _type(item.type_descriptor.annotation).replace("`", "").replace(" or ", "|").upper())
        shown = f"{', '.join(item.opts)} {kind}".strip()
        default = "off" if item.is_flag else "none" if item.default is None else f"`{item.default}`"
    else:
        shown, default = item.metavar or item.name.upper(), f"`{item.default}`"
    if item.required:
        default = "required"
    if isinstance(item.show_default, str):
        default = item.show_default
    return f"| {_code(shown)} | {default} | {_cell(item.help or '')} |"


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def _packs() -> Iterator[str]:
    yield from ("# Pack files", "", _NOTE, "", "A pack is a folder. `pack.yaml` is required; every other file holds one list and may be absent.", "")
    yield from _kind("pack.yaml", PackFacts, "its keys stand at the top level")
    for name, (key, kind) in FILES.items():
        yield from _kind(name, kind, f"the list `{key}:`, each item with these keys")


def _kind(name: str, kind: type[Settings], where: str) -> Iterator[str]:
    yield from (f"## {name}", "", f"{_first(kind)} In the file: {where}.", "", "| key | type | default | meaning |", "|---|---|---|---|")
    for key, field in kind.model_fields.items():
        below = _nested(field.annotation)
        meaning = field.description or (_first(below) if below else "")
        if below is not None:
            meaning += " Keys: " + ", ".join(f"`{item}`" for item in below.model_fields) + "."
        yield f"| `{key}` | {_type(field.annotation)} | {_default(field.default)} | {_cell(meaning)} |"
    yield ""


def _identifiers() -> Iterator[str]:
    yield from ("# Identifiers", "", _NOTE, "", "What is looked for in text. A kind may have several rules, for several languages and ways of writing.", "")
    yield from _kinds("In every project", privacy.general_identifiers())
    for installed in packs.available():
        if installed.distribution == "metier":
            yield from _kinds(f"With the pack {installed.name}", packs.load(installed.name).identifiers)


def _kinds(title: str, identifiers: tuple[packs.Identifier, ...]) -> Iterator[str]:
    yield from (f"## {title}", "", "| kind | languages | replaced by | examples that are found |", "|---|---|---|---|")
    for kind in dict.fromkeys(item.entity for item in identifiers):
        rules = [item for item in identifiers if item.entity == kind]
        spoken = sorted({language for item in rules for language in item.languages or ("all",)})
        ways = sorted({item.surrogate if item.replace == "surrogate" else item.replace for item in rules})
        shown = "; ".join(_cell(item.examples.match[0]) for item in rules[:2])
        yield f"| `{kind}` | {', '.join(spoken)} | {', '.join(ways)} | {shown} |"
    yield ""


def _errors() -> Iterator[str]:
    yield from ("# Errors", "", _NOTE, "", inspect.cleandoc(errors.__doc__ or "").replace("::\n", "", 1), "")
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type) and issubclass(kind, errors.MetierError):
            yield from (f"## {name}", "", f"{_first(kind)} Exit code {kind.exit_code}.", "")


def _python() -> Iterator[str]:
    yield from ("# Python", "", _NOTE, "")
    for name in MODULES:
        module = import_module(f"metier.{name}")
        yield from (f"## metier.{name}", "", " ".join(inspect.getdoc(module).split("\n\n")[0].split()), "")
        for public in module.__all__:
            yield from _public(f"metier.{name}", public, getattr(module, public))


def _public(module: str, name: str, value: Any) -> Iterator[str]:
    yield from (f"### {module}.{name}", "")
    if inspect.isfunction(value) or inspect.isclass(value):
        with contextlib.suppress(TypeError, ValueError):
            yield from ("```text", f"{name}{_signature(value)}", "```", "")
        yield from (inspect.getdoc(value) or "", "")
    else:
        shown = repr(_Plain(repr(value)))
        yield from (f"`{shown}`" if len(shown) < 120 else f"A {type(value).__name__}.", "")


class _Plain:
    """Shows an annotation as it is written, without quotes; a default that is an object of its own by its name."""

    def __init__(self, text: str) -> None:
        self.text = re.sub(r"<(?:function )?(?:[\w.]+\.)?(\w+)(?: object)? at 0x\w+>", r"\1", text)

    def __repr__(self) -> str:
        return self.text


def _signature(value: Any) -> inspect.Signature:
    given = inspect.signature(value)
    parameters = [
        item.replace(
            annotation=_Plain(item.annotation) if isinstance(item.annotation, str) else item.annotation,
            default=item.default if item.default is item.empty else _Plain(repr(item.default)),
        )
        for item in given.parameters.values()
    ]
    returned = given.return_annotation
    return given.replace(parameters=parameters, return_annotation=_Plain(returned) if isinstance(returned, str) else returned)


def _first(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
