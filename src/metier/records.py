"""The record: the one unit of data that every room reads, and the drop: a record that left, with its reason."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import SequenceMatcher
from typing import Any, Literal, TypeAlias

from metier.digest import digest_of

__all__ = [
    "Drop",
    "Edit",
    "Message",
    "Record",
    "Role",
    "Source",
    "Span",
    "Step",
    "identify",
    "moved",
    "record_from_dict",
    "record_to_dict",
    "source_to_dict",
    "strings",
    "with_strings",
    "with_text",
]

Role: TypeAlias = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; `learn` says whether the model is trained on it (the unit of the loss mask)."""

    role: Role
    content: str
    learn: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of text, `start` inclusive and `end` exclusive, counted in code points."""

    start: int
    end: int
    type: str
    text: str = ""
    score: float = 1.0
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a record comes from: file, SHA-256 of its bytes, position (line, row or page) and terms of use."""

    uri: str
    digest: str
    position: str
    licence: str
    basis: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One unit of source text with its provenance. What is absent is None or empty, never a magic value."""

    id: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    label: str | None = None
    spans: tuple[Span, ...] = ()
    language: str | None = None
    domain: str | None = None
    task: str | None = None
    source: Source | None = None
    subject: str | None = None
    group: str | None = None
    time: str | None = None
    parents: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Drop:
    """A record that left the path. `content` keeps what was dropped: the record as JSON, or the raw line; less, where it could not be de-identified."""

    record_id: str
    step: str
    reason: str
    source: Source | None = None
    content: str = ""


Edit: TypeAlias = tuple[int, int, int, int]
"""What stood from `start` to `end` of a text stands from `new_start` to `new_end` of the next; (start, end, new_start, new_end)."""

Step: TypeAlias = Callable[[Iterable[Record]], Iterator[Record | Drop]]


def identify(record: Record) -> str:
    """Return the id of a record: 32 hexadecimal characters of the SHA-256 of its content, source position and parents.

    The same input therefore gets the same id everywhere, and two equal rows of one file get different ones.
    """
    content: dict[str, Any] = {
        "text": record.text,
        "messages": [[message.role, message.content] for message in record.messages],
        "label": record.label,
        "source": None if record.source is None else [record.source.uri, record.source.position],
        "parents": list(record.parents),
        "task": record.task,
        "metadata": dict(record.metadata),
    }
    if record.spans:
        content["spans"] = [[span.start, span.end, span.type] for span in record.spans]
    return digest_of(content)[:32]


_SPAN = tuple(item.name for item in fields(Span))
_SOURCE = tuple(item.name for item in fields(Source))
_RECORD = tuple(item.name for item in fields(Record))


def record_to_dict(record: Record) -> dict[str, Any]:
    """Return a record as plain JSON values (tuples become lists, nothing is left out)."""
    # Written out rather than by dataclasses.asdict: every record passes here several times, and asdict copies at a tenth of the speed.
    row = {name: getattr(record, name) for name in _RECORD}
    row["messages"] = [{"role": message.role, "content": message.content, "learn": message.learn} for message in record.messages]
    row["spans"] = [{name: getattr(span, name) for name in _SPAN} for span in record.spans]
    row["source"] = source_to_dict(record.source)
    row["parents"] = list(record.parents)
    row["metadata"] = dict(record.metadata)
    return row


def source_to_dict(source: Source | None) -> dict[str, Any] | None:
    """Return a source as plain JSON values."""
    return None if source is None else {name: getattr(source, name) for name in _SOURCE}


def record_from_dict(row: Mapping[str, Any]) -> Record:
    """Return the record that `record_to_dict` wrote. Raises TypeError for unknown or missing keys."""
    values = dict(row)
    values["messages"] = tuple(Message(**message) for message in row.get("messages") or ())
    values["spans"] = tuple(Span(**span) for span in row.get("spans") or ())
    source = row.get("source")
    values["source"] = None if source is None else Source(**source)
    values["parents"] = tuple(row.get("parents") or ())
    return Record(**values)


def strings(record: Record) -> list[str]:
    """Return every string of a record in a fixed order: text, messages, label, metadata at any depth.

    Whole numbers of the metadata are given as strings too: a telephone number may be stored as a number. Who changes the strings of
    records and who checks them afterwards both take them from here, so that nothing is reached by the one and missed by the other.
    """
    found = [record.text, *(message.content for message in record.messages)]
    if record.label is not None:
        found.append(record.label)
    found.extend(_inside(dict(record.metadata)))
    return found


def with_strings(record: Record, changed: Sequence[str]) -> Record:
    """Return the record with its strings replaced, in the order of `strings`. Raises ValueError if their number differs.

    Spans move with the text that they mark (see `moved`).
    """
    rest = iter(changed)
    try:
        text = next(rest)
        messages = tuple(replace(message, content=next(rest)) for message in record.messages)
        label = None if record.label is None else next(rest)
        metadata = _rebuilt(dict(record.metadata), rest)
    except (StopIteration, RuntimeError):
        raise ValueError("fewer strings than the record has") from None
    if next(rest, None) is not None:
        raise ValueError("more strings than the record has")
    return replace(with_text(record, text), messages=messages, label=label, metadata=metadata)


def with_text(record: Record, text: str) -> Record:
    """Return the record with another text; its spans move with what they mark (see `moved`)."""
    if text == record.text:
        return record
    return replace(record, text=text, spans=moved(record.spans, _edits(record.text, text), text) if record.spans else ())


def moved(spans: Sequence[Span], edits: Sequence[Edit], text: str) -> tuple[Span, ...]:
    """Return spans at the places that edits, in order, moved them to in the new `text`; one whose text is gone goes with it.

    A border inside an edit becomes that edit's border, so that a span holds what replaced its text.
    """
    starts, ends = [edit[0] for edit in edits], [edit[1] for edit in edits]
    found = []
    for span in spans:
        after = bisect_right(ends, span.start)
        start = span.start + (edits[after - 1][3] - edits[after - 1][1] if after else 0)
        if after < len(edits) and edits[after][0] < span.start:
            start = edits[after][2]
        before = bisect_left(starts, span.end)
        end = span.end + (edits[before - 1][3] - edits[before - 1][1] if before else 0)
        if before and edits[before - 1][1] > span.end:
            end = edits[before - 1][3]
        if start < end:
            found.append(replace(span, start=start, end=end, text=text[start:end]))
    return tuple(found)


def _edits(before: str, after: str) -> list[Edit]:
    """Return by what edits one text becomes another (Ratcliff and Obershelp's matching, between the common beginning and end)."""
    least = min(len(before), len(after))
    head = next((place for place in range(least) if before[place] != after[place]), least)
    tail = next((place for place in range(least - head) if before[-1 - place] != after[-1 - place]), least - head)
    matcher = SequenceMatcher(None, before[head : len(before) - tail], after[head : len(after) - tail], autojunk=False)
    return [(head + a, head + b, head + c, head + d) for kind, a, b, c, d in matcher.get_opcodes() if kind != "equal"]


def _inside(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from _inside(value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _inside(item)


def _rebuilt(value: Any, rest: Iterator[str]) -> Any:
    if isinstance(value, str):
        return next(rest)
    if isinstance(value, int) and not isinstance(value, bool):
        changed = next(rest)
        return value if changed == str(value) else changed
    if isinstance(value, dict):
        return {key: _rebuilt(value[key], rest) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_rebuilt(item, rest) for item in value]
    return value
