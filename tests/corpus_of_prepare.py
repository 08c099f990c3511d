"""Small corpora, templates and workspaces for the tests of preparation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metier.packs.spec import Pack, PackFacts, Template, TemplateMessage
from metier.prepare import PrepareSettings, build
from metier.records import Drop, Message, Record, Source, identify
from metier.store import Store


class Given:
    """An origin that holds its records."""

    def __init__(self, records: list[Record | Drop], templates: tuple[str, ...] = ()) -> None:
        self.records = records
        self.digest = "0" * 64
        facts = {"bytes": 1, "format": "json", "encoding": "utf-8", "encoding_reason": "declared", "licence": "internal", "basis": None}
        self._entry = {"uri": "a.jsonl", "sha256": "1" * 64, "rows": len(records), "malformed": 0, "templates": list(templates), **facts}

    @property
    def register(self) -> list[dict[str, Any]]:
        return [self._entry]

    def __iter__(self) -> Iterator[Record | Drop]:
        return iter(self.records)


def row(line: int, **values: Any) -> Record:
    """Return a record of the line of a file."""
    import dataclasses

    record = Record(id="", source=Source("a.jsonl", "1" * 64, f"line {line}", "internal"), **values)
    return dataclasses.replace(record, id=identify(record))


def chat(line: int, question: str, answer: str, **values: Any) -> Record:
    """Return a conversation of one question and one answer."""
    return row(line, messages=(Message("user", question), Message("assistant", answer, True)), **values)


def template(name: str, language: str, needs: tuple[str, ...], question: str, answer: str, **values: Any) -> Template:
    """Return a template of two messages."""
    messages = (TemplateMessage(role="user", content=question), TemplateMessage(role="assistant", content=answer))
    return Template(
        name=name, task=values.pop("task", name), language=language, needs=needs, messages=messages, examples=({"given": {}, "answer": ""},), **values
    )


def pack(**values: Any) -> Pack:
    """Return a pack of these rules."""
    return Pack(facts=PackFacts(name="example", version="1", title={"en": "Example"}, languages=("zh", "en")), folder=Path(), digest="2" * 64, **values)


def made(root: Path, records: list[Record | Drop], *, rules: Pack | None = None, languages: tuple[str, ...] = ("zh", "en"), key: str = "k", **settings: Any):
    """Build a dataset below `root` and return its artefact."""
    workspace = Store(root / ".metier").workspace(key)
    return build(Given(records), rules or pack(), PrepareSettings.model_validate(settings), languages, workspace=workspace)


NAMES = "海山河林云星雪风花月石松竹梅兰菊春夏秋冬东西南北金木水火土天"


def distinct(count: int) -> list[Record]:
    """Return conversations that share next to nothing with each other, Chinese and English in turn."""
    found = []
    for number in range(count):
        a, b, c = NAMES[number % 30], NAMES[number * 7 % 29], NAMES[number // 30 % 30]
        if number % 2:
            found.append(chat(number, f"{a}{b}{c}{a}{c}怎么{b}{a}样{c}？", f"{c}{b}可{a}{a}以{b}{c}试{number}试{a}。"))
        else:
            words = [f"w{number * 31 % 97}x{place}{number}" for place in range(6)]
            found.append(chat(number, f"What is {' '.join(words)}?", f"It is {' '.join(reversed(words))}."))
    return found
