"""Phrases, homophones and prompts of augmentation: data beside this module, and the pack's own sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from metier.config import load_yaml
from metier.packs.spec import Phrase
from metier.prepare.asking import Task

__all__ = ["homophones", "keys", "phrases", "prompt_templates"]

_DATA = Path(__file__).parent / "data"
_USES = {"refusal": "refusals", "greeting": "greetings", "opening": "openings"}


@lru_cache(maxsize=1)
def _general() -> Mapping[str, Any]:
    found: Mapping[str, Any] = load_yaml(_DATA / "phrases.yaml").value
    return found


def phrases(language: str, own: Iterable[Phrase] = ()) -> dict[str, list[Any]]:
    """Return the phrases of a language by use; those of the pack stand for the general ones of the same use. An unknown language has none."""
    found: dict[str, list[Any]] = dict(_general().get(language, {}))
    for use, name in _USES.items():
        if texts := [phrase.text for phrase in own if phrase.use == use and phrase.language == language]:
            found[name] = texts
    return found


def keys() -> Mapping[str, str]:
    """Return the keys beside each key."""
    found: Mapping[str, str] = _general()["keys"]
    return found


@lru_cache(maxsize=1)
def homophones() -> Mapping[str, str]:
    """Return for each common Han letter the others of its syllable, the most frequent first."""
    syllables: Mapping[str, str] = load_yaml(_DATA / "homophones.yaml").value["syllables"]
    return {letter: letters.replace(letter, "") for letters in syllables.values() for letter in letters}


@lru_cache(maxsize=1)
def prompt_templates() -> Mapping[str, Mapping[str, Task]]:
    """Return what a writer is asked, by step and language; `{text}` stands for the question."""
    found: Mapping[str, Mapping[str, Task]] = load_yaml(_DATA / "prompts.yaml").value
    return found
