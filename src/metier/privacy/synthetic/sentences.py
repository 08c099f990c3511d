"""Sentences with invented identifiers, from the material of packs and of the core."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import regex

from metier.errors import Fault, PackError, nearest
from metier.packs import SyntheticSet, available, load
from metier.packs.loader import read_list
from metier.privacy.synthetic.values import MAKERS, shaped
from metier.privacy.synthetic.variants import VARIANTS, applies, disfigure
from metier.records import Span

__all__ = ["Example", "Material", "examples", "material", "presidio"]

_SLOT = regex.compile(r"\{([A-Z][A-Z0-9_]*)\}")
_PLAIN_SHARE = 0.2
_BESIDE_SHARE = 0.5

_FREE = frozenset(
    {"EMAIL_ADDRESS", "URL", "IP_ADDRESS", "MAC_ADDRESS", "CRYPTO", "GEO_COORDINATE", "ADDRESS", "DATE", "DATE_OF_BIRTH", "AGE_OVER_89", "CN_PLATE"}
)
"""Kinds that neither a check digit nor a label confirms: they are not written with letters for digits, and not in groups."""


@dataclass(frozen=True, slots=True)
class Material:
    """The material of one language, joined."""

    language: str
    sentences: tuple[str, ...]
    """Sentences with identifiers."""
    beside: tuple[str, ...]
    """Sentences without."""
    labels: Mapping[str, tuple[str, ...]]
    values: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Example:
    """One text, the identifiers in it (`rule` of a span is the variant) and the template that it was written from."""

    text: str
    spans: tuple[Span, ...]
    template: str
    language: str


@lru_cache(maxsize=8)
def material(language: str) -> Material:
    """Return the material of the core and of every installed pack for a language.

    Raises PackError for a language without material, and for a kind that a sentence names and nothing makes.
    """
    _, own, faults = read_list(Path(__file__).parent / "data" / "neutral.yaml", "synthetic", SyntheticSet)
    if faults:
        raise PackError(faults)
    sets = [item for _, item in own]
    for installed in available():
        sets += load(installed.name).synthetic
    spoken = [item for item in sets if item.language == language]
    if not spoken:
        raise PackError(Fault(f"there is no material for sentences in {language!r}", remedy=nearest(language, sorted({item.language for item in sets}))))
    values = {kind: shapes for item in spoken for kind, shapes in item.values.items()}
    sentences = [sentence for item in spoken for sentence in item.sentences]
    for sentence in sentences:
        for kind in _SLOT.findall(sentence):
            if kind not in values:
                raise PackError(Fault(f"nothing makes the values of {kind} in {language!r}", remedy=nearest(kind, list(values))))
    return Material(
        language,
        tuple(sentence for sentence in sentences if _SLOT.search(sentence)),
        tuple(sentence for sentence in sentences if not _SLOT.search(sentence)),
        {kind: words for item in spoken for kind, words in item.labels.items()},
        values,
        {slot: kind for item in spoken for slot, kind in item.kinds.items()},
    )


def examples(language: str, count: int, *, seed: int, variants: Sequence[str] = VARIANTS) -> Iterator[Example]:
    """Yield `count` texts in a language; the same seed gives the same texts. Raises PackError for a variant or a language that does not exist."""
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise PackError([Fault(f"{name!r} is no variant", remedy=nearest(name, VARIANTS)) for name in unknown])
    known = material(language)
    for number in range(count):
        yield _example(known, Random(f"{seed}\0{language}\0{number}"), number, variants)


def _value(known: Material, rng: Random, kind: str) -> str:
    shape = rng.choice(known.values[kind])
    return MAKERS[shape[1:]](rng) if shape.startswith("=") else shaped(rng, shape)


def _example(known: Material, rng: Random, number: int, variants: Sequence[str]) -> Example:
    template = known.sentences[number % len(known.sentences)]
    kinds = _SLOT.findall(template)
    values = [_value(known, rng, kind) for kind in kinds]
    possible = [name for name in variants if all(applies(name, value, kind not in _FREE) for kind, value in zip(kinds, values, strict=True))]
    if "AGE_OVER_89" in kinds:  # the word for years says that it is an age
        possible = [name for name in possible if name != "edge"]
    if not all(kind in known.labels for kind in kinds):
        possible = [name for name in possible if name not in ("cell", "json")]
    variant = "plain" if "plain" in possible and rng.random() < _PLAIN_SHARE else rng.choice(possible or ["plain"])
    written = [disfigure(rng, variant, value) for value in values]
    if variant in ("cell", "json"):
        return _fields(known, rng, kinds, written, variant)
    pieces = _SLOT.split(template)[::2]
    if variant == "edge":
        pieces[-1] = ""
    pieces = _surrounded(pieces, variant, known.language)
    if variant != "edge" and known.beside:
        gap = "" if known.language == "zh" else " "
        pieces[0] = (rng.choice(known.beside) + gap if rng.random() < _BESIDE_SHARE else "") + pieces[0]
        pieces[-1] += gap + rng.choice(known.beside) if rng.random() < _BESIDE_SHARE else ""
    return _joined(known, pieces, kinds, written, variant, template)


def _surrounded(pieces: list[str], variant: str, language: str) -> list[str]:
    if variant == "spaced":
        return [piece if index == 0 and not piece else f"{' ' * bool(index)}{piece}{' ' * (index < len(pieces) - 1)}" for index, piece in enumerate(pieces)]
    if variant == "tight":
        ends = [piece.rstrip() if index < len(pieces) - 1 else piece for index, piece in enumerate(pieces)]
        if language != "zh":  # a Latin word and a number are never written as one, but a colon goes without a space
            ends = [piece if not piece or not piece[-1].isalnum() or index == len(ends) - 1 else f"{piece}:" for index, piece in enumerate(ends)]
        return ends
    return pieces


def _joined(known: Material, pieces: Sequence[str], slots: Sequence[str], values: Sequence[str], variant: str, template: str) -> Example:
    text, spans = pieces[0], []
    for slot, value, piece in zip(slots, values, pieces[1:], strict=True):
        spans.append(Span(len(text), len(text) + len(value), known.kinds.get(slot, slot), value, 1.0, variant))
        text += value + piece
    return Example(text, tuple(spans), template, known.language)


def _fields(known: Material, rng: Random, kinds: Sequence[str], values: Sequence[str], variant: str) -> Example:
    labels = [rng.choice(known.labels[kind]) for kind in kinds]
    if variant == "cell":
        mark = rng.choice(["|", "\t", " | "])
        pieces = [f"{mark.lstrip()}{labels[0]}{mark}", *(f"{mark}\n{mark.lstrip()}{label}{mark}" for label in labels[1:]), mark.rstrip(" ")]
    else:
        keys = [json.dumps(label, ensure_ascii=False) for label in labels]
        pieces = [f'{{{keys[0]}: "', *(f'", {key}: "' for key in keys[1:]), '"}']
    return _joined(known, pieces, kinds, values, variant, variant)


def presidio(example: Example) -> dict[str, Any]:
    """Return an example with the keys that presidio-research uses; `variant` is ours."""
    spans = [
        {"entity_type": span.type, "entity_value": span.text, "start_position": span.start, "end_position": span.end, "variant": span.rule}
        for span in example.spans
    ]
    return {"full_text": example.text, "spans": spans, "template": example.template, "metadata": {"language": example.language}}
