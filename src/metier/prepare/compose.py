"""Rows become conversations: templates are filled with a row's fields; rows that are conversations already stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from metier.config import Settings
from metier.errors import Fault, InputError, nearest
from metier.packs.render import render
from metier.packs.spec import Template
from metier.prepare.standardize.places import without_text
from metier.records import Message, Record, identify

__all__ = ["ComposeSettings", "Composer", "conversation_key"]

_OWN_TASK = "chat"
_TEXT_TASK = "text"


class ComposeSettings(Settings):
    """What becomes of rows that are no conversations."""

    text: Literal["drop", "keep", "only"] = "drop"
    """A row with a text that no template fits: `drop` puts it into the ledger, `keep` leaves it in the dataset as a plain text. `only`: no template
    is applied, every row stays a text. A plain text is what labels and spans are taught on (`training.task`); where answers are taught it is learnt as it
    stands, to be continued."""


def conversation_key(record: Record) -> tuple[tuple[str, str], ...]:
    """Return what makes two records the same text: every role and content, or the text and label of one without messages."""
    if not record.messages:
        return ((record.label or "", record.text),)
    return tuple((message.role, message.content) for message in record.messages)


class Composer:
    """Applies the templates that each source names, or all that fit."""

    def __init__(self, templates: Sequence[Template], register: Sequence[Mapping[str, Any]], settings: ComposeSettings | None = None) -> None:
        """Raise InputError if a source names a template that is not there."""
        texts = (settings or ComposeSettings()).text
        self._keep = texts != "drop"
        self._templates = () if texts == "only" else tuple(templates)
        names = [template.name for template in templates]
        self._chosen: dict[str, tuple[Template, ...]] = {}
        faults = []
        for entry in register:
            wanted = list(entry.get("templates") or ())
            missing = [name for name in wanted if name not in names]
            faults += [Fault(f"there is no template {name!r}", entry["uri"], key="templates", remedy=nearest(name, names)) for name in missing]
            if wanted and texts != "only":
                self._chosen[entry["uri"]] = tuple(template for template in templates if template.name in wanted)
        if faults:
            raise InputError(faults)

    def compose(self, record: Record) -> Iterator[tuple[Record, str]]:
        """Yield the conversations of a row, each with what made it: `template:NAME`, or `as-is`.

        A template fits a row of its language whose fields hold everything it needs. All conversations of a row share its
        group, so that they stay in one split. Raises PackError for a template that cannot be filled.
        """
        if record.messages:
            yield replace(record, task=record.task or _OWN_TASK), "as-is"
            return
        fields = {**record.metadata, "text": record.text, "label": record.label, "language": record.language}
        chosen = self._chosen.get(record.source.uri, self._templates) if record.source else self._templates
        made: set[str] = set()
        for template in chosen:
            if record.language in (None, template.language) and all(_there(fields.get(name)) for name in template.needs):
                composed = _fill(record, template, fields)
                if composed.id not in made:
                    made.add(composed.id)
                    yield composed, f"template:{template.name}"
        if not made and self._keep and record.text.strip():
            yield replace(record, task=record.task or _TEXT_TASK), "as-is"


def _there(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None and value not in ([], {})


def _fill(record: Record, template: Template, fields: Mapping[str, Any]) -> Record:
    messages = tuple(
        Message(message.role, render(message.content, fields), message.role == "assistant" if message.learn is None else message.learn)
        for message in template.messages
    )
    label = record.label if template.label is None else fields.get(template.label)
    composed = replace(
        record,
        text="",
        messages=messages,
        label=None if label is None else str(label),
        language=template.language,
        task=template.task,
        group=record.group or record.id,
        parents=(record.id,),
        metadata=without_text(record.metadata),
    )
    return replace(composed, id=identify(composed))
