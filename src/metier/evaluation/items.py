"""What is asked: items, tasks of items, and the answers that come back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from metier.digest import digest_of
from metier.packs.spec import Metric
from metier.records import Message

__all__ = ["Answer", "Item", "Task", "conversation", "sample"]


@dataclass(frozen=True, slots=True)
class Item:
    """One question. `target` is the expected answer; `choices` are what the model chooses among, if it does."""

    id: str
    language: str
    prompt: tuple[Message, ...]
    target: str
    choices: tuple[str, ...] = ()
    record_id: str = ""
    family: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt_hash(self) -> str:
        """SHA-256 over the prompt's messages and the choices: what the model is asked."""
        return digest_of([[[message.role, message.content] for message in self.prompt], list(self.choices)])

    @property
    def target_hash(self) -> str:
        """SHA-256 of the expected answer."""
        return digest_of(self.target)

    @property
    def doc_hash(self) -> str:
        """SHA-256 over everything that makes the item."""
        return digest_of([self.id, self.language, self.prompt_hash, self.target])


@dataclass(frozen=True, slots=True)
class Task:
    """Items with what is measured on them.

    `kind`: `choose` ranks the choices by likelihood, `generate` writes an answer, `likelihood` scores the reference answer, `label` is
    answered by a model with a head.
    `available` counts the items before sampling; `left_out` says why others could not be asked.
    """

    name: str
    kind: Literal["choose", "generate", "likelihood", "label"]
    items: tuple[Item, ...]
    metrics: tuple[Metric, ...]
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    parser: str | None = None
    shots: int = 0
    version: str = "1"
    available: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one side (base or tuned) gave for one item: a text, or (log probability, tokens) of each choice."""

    text: str = ""
    tokens: int = 0
    finish: str = ""
    likelihoods: tuple[tuple[float, int], ...] = ()

    def as_row(self, item: Item) -> dict[str, Any]:
        """Return the answer as a JSON row that names what was asked."""
        return {"item": item.id, "prompt_hash": item.prompt_hash, **asdict(self)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Answer:
        """Return the answer of a row. Raises KeyError, TypeError or ValueError for a row that `as_row` did not write."""
        pairs = tuple((float(value), int(count)) for value, count in row["likelihoods"])
        return cls(str(row["text"]), int(row["tokens"]), str(row["finish"]), pairs)


def sample(items: Iterable[Item], limit: int, seed: int) -> tuple[Item, ...]:
    """Return at most `limit` items a language, chosen by the hash of seed and id: the same whatever the order they come in."""
    by_language: dict[str, list[Item]] = {}
    for item in items:
        by_language.setdefault(item.language, []).append(item)
    chosen: list[Item] = []
    for language in sorted(by_language):
        chosen += sorted(by_language[language], key=lambda item: digest_of([seed, item.id]))[:limit]
    return tuple(chosen)


def conversation(user: str) -> tuple[Message, ...]:
    """Return a prompt of one user message."""
    return (Message("user", user),)
