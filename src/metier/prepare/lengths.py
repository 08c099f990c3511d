"""Lengths in characters and tokens: what is too long is split at sentence, article or turn borders, or dropped; nothing is cut silently.

An answer is never cut: half an answer would teach the model to stop in the middle. What cannot be split at a border leaves with its
reason.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from pydantic import Field

from metier.config import Settings
from metier.prepare.drops import drop
from metier.prepare.sentences import articles, clauses, sentences
from metier.prepare.standardize.places import in_part, in_turns
from metier.records import Drop, Message, Record, Span, identify

__all__ = ["Count", "LengthSettings", "fit", "fitted", "length_report", "text_counter", "token_counter"]

Count: TypeAlias = Callable[[Record], int]
"""Tokens of a record as training reads it."""

Part: TypeAlias = tuple[Record, tuple[str, ...]]

STEP = "lengths"
_SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_BINS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class LengthSettings(Settings):
    """What happens to records that are longer than training takes."""

    over: Literal["keep", "split", "drop"] = "keep"
    """`split`: text at article, sentence or clause borders, conversations between turns; what has no border leaves. `drop`: the record
    leaves. `keep`: it stays, and training leaves it out and says so."""
    maximum_tokens: int | Literal["auto"] = Field(default="auto")
    """Most tokens of a record; `auto`: `training.batch.maximum_tokens`."""
    minimum_tokens: int = Field(default=0, ge=0)
    """Records with fewer tokens leave; 0: none do."""


def token_counter(chat: Any) -> Count:
    """Return a function that counts a record's tokens as training encodes it, for a `metier.models.Chat`; text alone is counted as it stands."""

    def count(record: Record) -> int:
        if record.messages:
            return len(chat.encode(record.messages))
        return len(chat.tokenizer(record.text, add_special_tokens=False)["input_ids"])

    return count


def text_counter(tokenizer: Any) -> Count:
    """Return a function that counts the tokens of a record's text as a model with a head reads it, for a tokenizer that has no conversations."""

    def count(record: Record) -> int:
        text = record.text or "\n\n".join(message.content for message in record.messages)
        return len(tokenizer(text, split_special_tokens=True)["input_ids"])

    return count


def fit(record: Record, settings: LengthSettings, count: Count, *, maximum: int) -> list[Part | Drop]:
    """Return what becomes of a record: itself, its parts, or its drop. Parts hold everything that the record held.

    `maximum` stands for `auto`. Each part names the record as its parent and in its note where it stood
    (`lengths:part=2/3@512-1003`, in code points; `lengths:part=1/2@turns0-5` for messages); all parts share a group, so that they stay
    in one split. Of a conversation a single exchange that is too long leaves as a drop of its own.
    """
    limit = maximum if settings.maximum_tokens == "auto" else settings.maximum_tokens
    tokens = count(record)
    if tokens < settings.minimum_tokens:
        return [drop(record, STEP, f"too_short:{tokens}<{settings.minimum_tokens}")]
    if tokens <= limit or settings.over == "keep":
        return [(record, ())]
    if settings.over == "drop":
        return [drop(record, STEP, f"too_long:{tokens}>{limit}")]
    if record.messages:
        return _split_turns(record, count, limit)
    return _split_text(record, count, limit)


def fitted(settings: LengthSettings, count: Count, *, maximum: int) -> Callable[[Iterable[Record]], Iterator[Record | Drop]]:
    """Return the step that splits and drops as `fit` does."""

    def step(records: Iterable[Record]) -> Iterator[Record | Drop]:
        for record in records:
            for part in fit(record, settings, count, maximum=maximum):
                yield part if isinstance(part, Drop) else part[0]

    return step


def _split_text(record: Record, count: Count, limit: int) -> list[Part | Drop]:
    """Split a text at the widest borders that fit: whole articles together, else sentences, else clauses."""
    text = record.text
    if not text:
        return [drop(record, STEP, f"too_long:{count(record)}>{limit}")]
    pieces: list[tuple[int, int]] = []
    for start, end in articles(text):
        pieces += _small_enough(record, start, end, count, limit)
    pieces = _without_cut_spans(pieces, record.spans)
    parts = _packed(record, pieces, count, limit)
    over = [count(_piece(record, start, end)) for start, end in parts]
    if max(over) > limit:
        return [drop(record, STEP, f"no_border:{max(over)}>{limit}")]
    if len(parts) == 1:
        return [(record, ())]
    made: list[Part | Drop] = []
    for number, (start, end) in enumerate(parts, 1):
        spans = tuple(_moved(span, start, text) for span in record.spans if start <= span.start and span.end <= end)
        part = replace(_piece(record, start, end), spans=spans, metadata=in_part(record.metadata, start, end))
        made.append(_part(record, part, f"part={number}/{len(parts)}@{start}-{end}"))
    return made


def _small_enough(record: Record, start: int, end: int, count: Count, limit: int) -> Iterator[tuple[int, int]]:
    """Yield an article whole if it fits, else its sentences, else the clauses of those that do not."""
    if count(_piece(record, start, end)) <= limit:
        yield start, end
        return
    for low, high in sentences(record.text[start:end]):
        if count(_piece(record, start + low, start + high)) <= limit:
            yield start + low, start + high
        else:
            yield from clauses(record.text, start + low, start + high)


def _without_cut_spans(pieces: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Join pieces whose border would cut a span."""
    if not spans:
        return list(pieces)
    ordered = sorted(spans, key=lambda span: span.start)
    starts = [span.start for span in ordered]
    joined: list[tuple[int, int]] = []
    for start, end in pieces:
        before = ordered[: bisect_right(starts, start)]
        if joined and any(span.start < start < span.end for span in before):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _packed(record: Record, pieces: Sequence[tuple[int, int]], count: Count, limit: int) -> list[tuple[int, int]]:
    """Join neighbouring pieces while their tokens add up to no more than the limit: each piece is counted once."""
    parts: list[tuple[int, int]] = []
    held = 0
    for start, end in pieces:
        tokens = count(_piece(record, start, end))
        if parts and held + tokens <= limit:
            parts[-1] = (parts[-1][0], end)
            held += tokens
        else:
            parts.append((start, end))
            held = tokens
    return parts


def _piece(record: Record, start: int, end: int) -> Record:
    return replace(record, text=record.text[start:end], spans=())


def _moved(span: Span, start: int, text: str) -> Span:
    return replace(span, start=span.start - start, end=span.end - start, text=span.text or text[span.start : span.end])


def _split_turns(record: Record, count: Count, limit: int) -> list[Part | Drop]:
    """Split a conversation between exchanges; what the system says stands in every part. Later parts do not see earlier turns."""
    exchanges = _exchanges(record.messages)
    groups: list[tuple[int, int]] = []
    for index in range(len(exchanges)):
        if groups and count(_turns(record, exchanges[groups[-1][0] : index + 1])) <= limit:
            groups[-1] = (groups[-1][0], index + 1)
        else:
            groups.append((index, index + 1))
    made: list[Part | Drop] = []
    for number, (start, end) in enumerate(groups, 1):
        turns = _turns(record, exchanges[start:end])
        place = f"part={number}/{len(groups)}@turns{exchanges[start][0]}-{exchanges[end - 1][1]}"
        part, notes = _part(record, turns, place)
        tokens = count(part)
        if tokens > limit:
            made.append(drop(record if len(groups) == 1 else part, STEP, f"answer_too_long:{tokens}>{limit}"))
        elif not any(message.learn for message in part.messages):
            made.append(drop(part, STEP, "nothing_to_learn"))
        else:
            made.append((part, notes))
    return made


def _exchanges(messages: Sequence[Message]) -> list[tuple[int, int]]:
    """Return the places of each user message with what follows up to the next, as (start, end)."""
    starts = [index for index, message in enumerate(messages) if message.role == "user"]
    first = next((index for index, message in enumerate(messages) if message.role != "system"), 0)
    if not starts or starts[0] > first:
        starts = [first, *starts]
    return list(zip(starts, [*starts[1:], len(messages)], strict=True))


def _turns(record: Record, exchanges: Sequence[tuple[int, int]]) -> Record:
    inside = range(exchanges[0][0], exchanges[-1][1])
    before = [number for number, message in enumerate(record.messages) if message.role == "system"]
    kept = [*before, *(number for number in inside if record.messages[number].role != "system")]
    return replace(record, messages=tuple(record.messages[number] for number in kept), metadata=in_turns(record.metadata, kept))


def _part(record: Record, part: Record, place: str) -> Part:
    part = replace(part, parents=(record.id,), group=record.group or record.id, metadata={**part.metadata, "part": place.removeprefix("part=")})
    return replace(part, id=identify(part)), (f"{STEP}:{place}",)


def length_report(records: Iterable[Record], count: Count | None = None, *, maximum: int | None = None) -> dict[str, Any]:
    """Return the distribution of lengths: over all, by language and by task, in characters and, with `count`, in tokens.

    Percentiles are observed values (nearest rank); `above` is the number and share of records with more tokens than `maximum`;
    `bins` counts records by powers of two for a picture.
    """
    characters: dict[str, list[int]] = {}
    tokens: dict[str, list[int]] = {}
    for record in records:
        keys = ("all", f"language {record.language or 'unknown'}", f"task {record.task or 'none'}")
        length = len(record.text) + sum(len(message.content) for message in record.messages)
        size = None if count is None else count(record)
        for key in keys:
            characters.setdefault(key, []).append(length)
            if size is not None:
                tokens.setdefault(key, []).append(size)
    report: dict[str, Any] = {"characters": _distribution(characters), "tokens": _distribution(tokens) if count is not None else None, "maximum": maximum}
    if count is not None and maximum is not None:
        for key, found in tokens.items():
            over = sum(value > maximum for value in found)
            report["tokens"][key]["above"] = {"records": over, "share": over / len(found)}
    return report


def _distribution(lengths: Mapping[str, list[int]]) -> dict[str, Any]:
    report = {}
    for key in sorted(lengths, key=lambda name: (name != "all", name)):
        found = sorted(lengths[key])
        bins = Counter(next((edge for edge in _BINS if value <= edge), _BINS[-1] * 2) for value in found)
        report[key] = {
            "records": len(found),
            "mean": sum(found) / len(found),
            "percentiles": {f"{share:.0%}": found[min(len(found) - 1, int(share * len(found)))] for share in _SHARES},
            "bins": {str(edge): bins.get(edge, 0) for edge in (*_BINS, _BINS[-1] * 2)},
        }
    return report


_PART_NOTE = re.compile(r"^lengths:part=(\d+)/(\d+)@")


def part_of(note: str) -> tuple[int, int] | None:
    """Return (number, parts) of a note of a part, or None for another note."""
    match = _PART_NOTE.match(note)
    return (int(match[1]), int(match[2])) if match else None
