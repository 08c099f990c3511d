"""Conformance: every example of a pack is run beside its rule, and what a pack promises of its languages is looked up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import regex

from metier.config import Document, load_yaml
from metier.errors import Fault, PackError
from metier.packs.fetching import fits
from metier.packs.loader import FILES
from metier.packs.matching import applies, compile_rule, guard_finds, quality_reason
from metier.packs.render import render
from metier.packs.scanning import find
from metier.packs.spec import Identifier, Pack, Template

__all__ = ["STANDARD_FIELDS", "check", "check_identifiers", "trap_in"]

STANDARD_FIELDS = ("text", "label", "language")
"""Fields that every record offers to a template besides its metadata."""

_TRAP = regex.compile(r"(?<!\\)(?:\\\\)*(\\[bBwW])")


def trap_in(pattern: str) -> str | None:
    r"""Return the first of ``\b \B \w \W`` in a pattern, or None.

    Han characters are letters to the regex engine, so these find no border between a Han character and a digit: an identifier that
    stands inside Chinese text is not found. ASCII look-arounds such as ``(?<![0-9A-Za-z])`` say what is meant.
    """
    found = _TRAP.search(pattern)
    return found.group(1) if found else None


def check(pack: Pack) -> list[Fault]:
    """Return everything in which a pack breaks the contract, by file and line; an empty list means that it conforms."""
    places = _Places(pack)
    faults = [*check_identifiers(pack.identifiers, pack.validators, places.fault)]
    for part in (_quality, _guard, _templates, _tasks, _lexicon, _controls, _corpora, _fetching, _languages, _tables):
        faults.extend(part(pack, places))
    return faults


class _Places:
    """Turns the position of a rule in the pack into a fault with file and line."""

    def __init__(self, pack: Pack) -> None:
        self.documents: dict[str, Document] = {}
        for name, (key, _) in FILES.items():
            path = pack.folder / name
            self.documents[key] = load_yaml(path, error=PackError) if path.is_file() else Document(path, {}, {})
        self.documents["facts"] = load_yaml(pack.folder / "pack.yaml", error=PackError)

    def fault(self, location: tuple[str | int, ...], what: str, remedy: str | None = None) -> Fault:
        document = self.documents[str(location[0])]
        return document.fault(location[1:] if location[0] == "facts" else location, what, remedy)


class _Nowhere:
    """Faults of rules that stand in no pack file."""

    @staticmethod
    def fault(location: tuple[str | int, ...], what: str, remedy: str | None = None) -> Fault:
        return Fault(what, key=".".join(str(part) for part in location), remedy=remedy)


def check_identifiers(identifiers: Iterable[Identifier], validators: Mapping[str, Any], fault: Any = _Nowhere.fault) -> Iterator[Fault]:
    """Yield a fault for each example that an identifier does not treat as it says, and for patterns with the border trap."""
    for index, identifier in enumerate(identifiers):
        here = ("identifiers", index)
        if trap := trap_in(identifier.pattern):
            yield fault((*here, "pattern"), f"{trap} sees no border beside Han characters", "use ASCII look-arounds")
        try:
            rule = compile_rule(identifier, validators)
            for kind, expected in (("match", True), ("reject", False)):
                for number, text in enumerate(getattr(identifier.examples, kind)):
                    if any(find(rule, text)) is not expected:
                        says = "is not found" if expected else "is found though it has to be left alone"
                        yield fault((*here, "examples", kind, number), f"{identifier.entity}: the example {says}")
        except PackError as raised:
            yield from (fault(here, item.what, item.remedy) for item in raised.faults)


def _examples(key: str, rules: Iterable[Any], found: Any, places: _Places) -> Iterator[Fault]:
    for index, rule in enumerate(rules):
        if rule.pattern is not None and (trap := trap_in(rule.pattern)):
            yield places.fault((key, index, "pattern"), f"{trap} sees no border beside Han characters", "use ASCII look-arounds")
        for kind, expected in (("match", True), ("reject", False)):
            for number, text in enumerate(getattr(rule.examples, kind)):
                try:
                    verdict = bool(found(rule, text))
                except PackError as raised:
                    yield from (places.fault((key, index, "pattern"), item.what, item.remedy) for item in raised.faults)
                    continue
                if verdict is not expected:
                    says = "is not found" if expected else "is found though it has to be left alone"
                    yield places.fault((key, index, "examples", kind, number), f"{rule.name}: the example {says}")


def _repeated(key: str, field: str, names: list[str], places: _Places) -> Iterator[Fault]:
    counts = Counter(names)
    for index, name in enumerate(names):
        if counts[name] > 1:
            yield places.fault((key, index, field), f"{name!r} stands {counts[name]} times", "names are given once")


def _quality(pack: Pack, places: _Places) -> Iterator[Fault]:
    yield from _repeated("quality", "name", [rule.name for rule in pack.quality], places)
    yield from _examples("quality", pack.quality, quality_reason, places)
    for index, rule in enumerate(pack.quality):
        if rule.pattern is None and rule.minimum_characters is None and rule.maximum_characters is None:
            yield places.fault(("quality", index), f"{rule.name}: the rule drops nothing", "give a pattern, minimum_characters or maximum_characters")


def _guard(pack: Pack, places: _Places) -> Iterator[Fault]:
    yield from _repeated("guard", "name", [rule.name for rule in pack.guard], places)
    yield from _examples("guard", pack.guard, guard_finds, places)
    for index, rule in enumerate(pack.guard):
        if rule.action != "redact":
            wanted = rule.languages or pack.facts.languages
            yield from _missing(("guard", index, "text"), f"{rule.name}: what is said", rule.text, wanted, places)


def _missing(location: tuple[str | int, ...], what: str, texts: Mapping[str, str], languages: Iterable[str], places: _Places) -> Iterator[Fault]:
    for language in languages:
        if not texts.get(language, "").strip():
            yield places.fault(location, f"{what} is missing in {language!r}", "the pack says that it speaks this language")


def _templates(pack: Pack, places: _Places) -> Iterator[Fault]:
    yield from _repeated("templates", "name", [template.name for template in pack.templates], places)
    for index, template in enumerate(pack.templates):
        here = ("templates", index)
        if template.language not in pack.facts.languages:
            yield places.fault((*here, "language"), f"{template.name}: {template.language!r} is not a language of the pack")
        if template.label is not None and template.label not in template.needs:
            yield places.fault((*here, "label"), f"{template.name}: the label {template.label!r} is not among the fields it needs")
        if template.messages[-1].role != "assistant" or template.messages[-1].learn is False:
            yield places.fault((*here, "messages"), f"{template.name}: the last message is not one that the model learns from")
        for number, example in enumerate(template.examples):
            yield from (places.fault((*here, "examples", number), f"{template.name}: {what}") for what in _example_faults(template, example))


def _example_faults(template: Template, example: Mapping[str, Any]) -> Iterator[str]:
    given, answer = example.get("given"), example.get("answer")
    if not isinstance(given, dict) or not isinstance(answer, str) or set(example) != {"given", "answer"}:
        yield "an example is {given: {field: value}, answer: text}"
        return
    if lacking := [name for name in template.needs if name not in given]:
        yield f"the example lacks {', '.join(lacking)}"
        return
    needed = {name: given[name] for name in given if name in template.needs or name in STANDARD_FIELDS}
    try:
        for message in template.messages:
            if not render(message.content, needed).strip():
                yield f"the {message.role} message is empty"
        rendered = render(template.messages[-1].content, given)
    except PackError as raised:
        yield from (item.what for item in raised.faults)
        return
    if rendered != answer:
        yield f"the last message is {rendered!r}, not {answer!r}"


def _tasks(pack: Pack, places: _Places) -> Iterator[Fault]:
    yield from _repeated("tasks", "task", [task.task for task in pack.tasks], places)
    for index, task in enumerate(pack.tasks):
        here = ("tasks", index)
        if "version" not in task.metadata:
            yield places.fault((*here, "metadata"), f"{task.task}: the task has no version", "add metadata: {version: 1}")
        if task.language is not None and task.language not in pack.facts.languages:
            yield places.fault((*here, "language"), f"{task.task}: {task.language!r} is not a language of the pack")
        if task.dataset_path != "dataset":
            if not (pack.folder / task.dataset_path).is_file():
                yield places.fault((*here, "dataset_path"), f"{task.task}: there is no file {task.dataset_path}")
            continue
        wanted = task.records or task.task
        sources = [template for template in pack.templates if template.task == wanted and applies((template.language,), task.language)]
        if not sources:
            yield places.fault((*here, "records"), f"{task.task}: no template makes records of the task {wanted!r}")
        if task.output_type == "multiple_choice" and task.doc_to_choice is None and any(template.label is None for template in sources):
            yield places.fault((*here, "output_type"), f"{task.task}: choices need templates that name a label", "set label: in the template")


def _lexicon(pack: Pack, places: _Places) -> Iterator[Fault]:
    yield from _repeated("lexicon", "code", [f"{term.system} {term.code}" for term in pack.lexicon], places)
    owners: dict[str, str] = {}
    for index, term in enumerate(pack.lexicon):
        yield from _missing(("lexicon", index, "preferred"), f"{term.code}: the preferred term", term.preferred, pack.facts.languages, places)
        for name in {*term.preferred.values(), *term.variants}:
            owner = owners.setdefault(f"{term.system}\0{name.casefold()}", term.code)
            if owner != term.code:
                yield places.fault(("lexicon", index), f"{name!r} belongs to {owner} and to {term.code}", "a name has one code")
        if repeated := [name for name, count in Counter(name.casefold() for name in term.variants).items() if count > 1]:
            yield places.fault(("lexicon", index, "variants"), f"{term.code}: {', '.join(repeated)} stands twice")


def _controls(pack: Pack, places: _Places) -> Iterator[Fault]:
    yield from _repeated("controls", "id", [control.id for control in pack.controls], places)
    for index, control in enumerate(pack.controls):
        for key in ("clause", "check"):
            if not getattr(control, key).strip():
                yield places.fault(("controls", index, key), f"{control.id}: the {key} is empty")
        yield from _missing(("controls", index, "title"), f"{control.id}: the title", control.title, pack.facts.languages, places)


def _corpora(pack: Pack, places: _Places) -> Iterator[Fault]:
    yield from _repeated("corpora", "name", [corpus.name for corpus in pack.corpora], places)
    for index, corpus in enumerate(pack.corpora):
        here = ("corpora", index)
        if corpus.format == "file" and corpus.reader is None:
            yield places.fault((*here, "reader"), f"{corpus.name}: whole files need a reader that takes them apart")
        if (corpus.format == "xml") and corpus.element is None:
            yield places.fault((*here, "element"), f"{corpus.name}: XML needs the name of the element that is a row")
        if corpus.element is not None and corpus.format not in ("xml", "json"):
            yield places.fault((*here, "element"), f"{corpus.name}: files of the format {corpus.format!r} have no elements")
        if corpus.reader is not None and not corpus.examples:
            yield places.fault((*here, "examples"), f"{corpus.name}: the reader has no example", "add {given: a row, rows: [...]}")
        for number, example in enumerate(corpus.examples):
            if set(example) != {"given", "rows"} or corpus.reader is None:
                yield places.fault((*here, "examples", number), f"{corpus.name}: an example is {{given: a row, rows: [...]}} of a reader")
            elif [dict(row) for row in pack.readers[corpus.reader](example["given"])] != example["rows"]:
                yield places.fault((*here, "examples", number), f"{corpus.name}: the reader {corpus.reader!r} gives other rows for the example")


def _fetching(pack: Pack, places: _Places) -> Iterator[Fault]:
    for index, corpus in enumerate(pack.corpora):
        parameters = corpus.fetch.parameters if corpus.fetch else ()
        counts = Counter(parameter.name for parameter in parameters)
        for number, parameter in enumerate(parameters):
            here, named = ("corpora", index, "fetch", "parameters", number), f"{corpus.name}: the parameter {parameter.name!r}"
            if counts[parameter.name] > 1:
                yield places.fault((*here, "name"), f"{named} stands {counts[parameter.name]} times", "names are given once")
            if parameter.required and parameter.default is not None:
                yield places.fault((*here, "default"), f"{named} is required and has a default", "leave one of them out")
            if parameter.default is not None and not fits(parameter, parameter.default):
                yield places.fault((*here, "default"), f"{named} does not take its own default")
            if (parameter.pattern is None) is not (parameter.examples is None):
                yield places.fault(here, f"{named} has a pattern without examples, or examples without a pattern", "give both")
            for kind, expected in (("match", True), ("reject", False)):
                for place, text in enumerate(getattr(parameter.examples, kind, ())):
                    if fits(parameter, text) is not expected:
                        says = "is not taken" if expected else "is taken though it has to be refused"
                        yield places.fault((*here, "examples", kind, place), f"{named}: the example {says}")


def _languages(pack: Pack, places: _Places) -> Iterator[Fault]:
    languages = pack.facts.languages
    if not languages:
        yield places.fault(("facts", "languages"), "the pack has no language")
    yield from _missing(("facts", "title"), "the title", pack.facts.title, languages, places)
    for language in languages:
        for key, rules in (("identifiers", pack.identifiers), ("quality", pack.quality), ("guard", pack.guard)):
            if rules and not any(applies(rule.languages, language) for rule in rules):
                yield places.fault((key,), f"no rule is for {language!r}", "the pack says that it speaks this language")
        for task in sorted({template.task for template in pack.templates}):
            if not any(template.task == task and template.language == language for template in pack.templates):
                yield places.fault(("templates",), f"the task {task!r} has no template in {language!r}")


def _tables(pack: Pack, places: _Places) -> Iterator[Fault]:
    tables: tuple[tuple[str, str, Mapping[str, Any], set[str | None]], ...] = (
        ("validator", "identifiers", pack.validators, {rule.validator for rule in pack.identifiers}),
        ("parser", "tasks", pack.parsers, {task.parser for task in pack.tasks}),
        ("reader", "corpora", pack.readers, {corpus.reader for corpus in pack.corpora}),
        ("fetcher", "corpora", pack.fetchers, {corpus.fetch.fetcher for corpus in pack.corpora if corpus.fetch}),
        ("scorer", "tasks", pack.scorers, {metric.metric for task in pack.tasks for metric in task.metric_list}),
    )
    for kind, key, table, used in tables:
        for name, function in table.items():
            if not callable(function):
                yield places.fault(("facts",), f"the {kind} {name!r} is not a function")
            elif name not in used:
                yield places.fault((key,), f"the {kind} {name!r} is named by no YAML file", "remove it from the table, or name it")
        if kind != "scorer":
            yield from (places.fault((key,), f"the {kind} {name!r} is in no table") for name in used - {None} - set(table))
