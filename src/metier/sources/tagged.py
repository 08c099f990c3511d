"""Texts with marked spans: words with a tag each (CoNLL files, columns of tokens and tags), or a column of spans with their places."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metier.records import Span
from metier.sources.encoding import open_text
from metier.sources.rows import Malformed, Row, Rows

__all__ = ["SpanError", "joined", "read_tagged", "spans_of_column"]

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\u3000-\u303f\uff00-\uffef]")
_TAG = re.compile(r"(?P<place>[BIOESLUM])(?:[-_](?P<type>.+))?", re.ASCII)
_BEGINS, _ENDS = frozenset("BSU"), frozenset("ESLU")


class SpanError(Exception):
    """Tags or spans that describe no stretch of the text; the text of the error never holds the row's content."""


def read_tagged(path: Path, encoding: str) -> Rows:
    """Read a file of a word a line, its tag in the last column, an empty line after each sentence (CoNLL 2002 and 2003).

    Columns are parted by a tab, else by white space. Lines that begin a document (`-DOCSTART-`) hold no word.
    """
    with open_text(path, encoding) as stream:
        for first, lines in _sentences(stream):
            raw = "\n".join(lines)
            cells = [line.split("\t") if "\t" in line else line.split() for line in lines]
            short = next((place for place, row in enumerate(cells) if len(row) < 2 or not row[0].strip() or not row[-1].strip()), None)
            if short is not None:
                yield Malformed("no_tag:a line holds a word and its tag", first + short, raw)
            elif lines[0].startswith("-DOCSTART-"):
                continue
            else:
                yield Row({"tokens": [row[0] for row in cells], "tags": [row[-1] for row in cells]}, first, raw)


def _sentences(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the lines of each sentence."""
    held: list[str] = []
    number = 0
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if text.strip():
            held.append(text)
        elif held:
            yield number - len(held), held
            held = []
    if held:
        yield number - len(held) + 1, held


def joined(tokens: Any, tags: Any) -> tuple[str, tuple[Span, ...]]:
    """Return text and spans of words with a tag each. BIO (with or without a B at every beginning), BIOES and BILOU are read.

    Words are joined by a space, except between Chinese characters and signs. Raises SpanError for tags of another kind.
    """
    if not isinstance(tokens, list | tuple) or not isinstance(tags, list | tuple):
        raise SpanError("wrong_type:tokens and tags are lists")
    if len(tokens) != len(tags):
        raise SpanError(f"wrong_number_of_tags:{len(tags)} tags for {len(tokens)} tokens")
    if not all(isinstance(item, str) for item in (*tokens, *tags)):
        raise SpanError("wrong_type:tokens and tags are texts, tags the names (B-TYPE), not their numbers")
    text, places = _laid_out(tokens)
    found: list[list[Any]] = []
    running: str | None = None
    for (start, end), tag in zip(places, tags, strict=True):
        match = _TAG.fullmatch(tag.strip())
        if match is None or (match["place"] == "O") != (match["type"] is None):
            raise SpanError("unknown_tag:tags are O, B-TYPE, I-TYPE, E-TYPE or S-TYPE")
        kind, place = match["type"], match["place"]
        if kind is not None:
            if kind == running and place not in _BEGINS:
                found[-1][1] = end
            else:
                found.append([start, end, kind])
        running = None if kind is None or place in _ENDS else kind
    return text, tuple(Span(start, end, kind, text[start:end]) for start, end, kind in found)


def _laid_out(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    text, places = "", []
    for token in tokens:
        if text and not (_HAN.match(text[-1]) and _HAN.match(token[:1])):
            text += " "
        places.append((len(text), len(text) + len(token)))
        text += token
    return text, places


def spans_of_column(value: Any, text: str) -> tuple[Span, ...]:
    """Return the spans of a column: a list of `{start, end, type}` (or `label` for `type`) or `[start, end, type]`, places in code points.

    Raises SpanError for places outside the text, and for a span whose own `text` is not what stands there.
    """
    if value is None or value == "":
        return ()
    if not isinstance(value, list | tuple):
        raise SpanError("wrong_type:spans are a list")
    return tuple(_span(item, text) for item in value)


def _span(item: Any, text: str) -> Span:
    said = None
    if isinstance(item, Mapping):
        place, kind, said = (item.get("start"), item.get("end")), item.get("type", item.get("label")), item.get("text")
    elif isinstance(item, list | tuple) and len(item) == 3:
        place, kind = (item[0], item[1]), item[2]
    else:
        raise SpanError("wrong_type:a span is {start, end, type} or [start, end, type]")
    start, end = (value if isinstance(value, int) and not isinstance(value, bool) else None for value in place)
    if start is None or end is None or not isinstance(kind, str) or not kind.strip():
        raise SpanError("wrong_type:a span has whole numbers as start and end and a name as type")
    if not 0 <= start < end <= len(text):
        raise SpanError(f"span_outside_text:{start}-{end} in {len(text)} characters")
    if said is not None and said != text[start:end]:
        raise SpanError(f"span_elsewhere:another text stands at {start}-{end}; places count code points from 0")
    return Span(start, end, kind.strip(), text[start:end])
