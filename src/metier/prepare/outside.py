"""What preparation uses beside rows, pack and settings: files that the settings name, the base model, the length that training takes.

All of it takes part in the identity of a dataset: another lexicon or another base model makes another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metier import models
from metier.digest import digest_file, digest_of
from metier.errors import Fault, InputError
from metier.prepare.settings import PrepareSettings
from metier.privacy.names import tagger_notes
from metier.privacy.settings import with_policy

__all__ = ["Outside", "look_outside", "needs_base"]


@dataclass(frozen=True, slots=True)
class Outside:
    """The outside of one preparation. `digest` is what of it can change the result; where the project lies cannot."""

    root: Path = field(default_factory=Path)
    files: tuple[tuple[str, str], ...] = ()
    """Names of files and the SHA-256 of their bytes."""
    base: models.Base | None = None
    maximum_tokens: int = 0
    """Most tokens of a record that training takes; 0 where nothing asks for it."""
    tests: tuple[str, ...] = ()
    """Files with items of the project's own evaluation tasks, relative to `root`."""
    notes: tuple[str, ...] = ()
    """What an optional part that is not installed leaves undone."""

    @property
    def digest(self) -> str:
        """Return the digest of files, base model, length and notes."""
        return digest_of([self.files, self.base.digest if self.base else None, self.maximum_tokens, self.notes])


def needs_base(settings: PrepareSettings) -> bool:
    """Return whether the settings ask for the base model or its tokenizer."""
    quality, lengths = settings.quality, settings.lengths
    measured = quality.enabled and (quality.model == "base" or quality.encoder == "base")
    written = settings.writer.use == "base" and (settings.generate.enabled or settings.augment.shares.written > 0 or settings.augment.shares.translated > 0)
    return measured or written or lengths.over != "keep" or lengths.minimum_tokens > 0


def look_outside(
    settings: PrepareSettings, root: Path, *, base: Callable[[], models.Base], maximum_tokens: int, languages: Sequence[str], tests: Sequence[str] = ()
) -> tuple[PrepareSettings, Outside]:
    """Return the settings with a policy file read into them, and what they need of the outside. Raises InputError with every file that is not there."""
    settings = settings.model_copy(update={"deidentify": with_policy(settings.deidentify, root)})
    faults: list[Fault] = []
    files: list[tuple[str, str]] = []
    named = [(f"prepare.{key}", name) for key, name in _named(settings)]
    for key, name in (*named, *(("evaluation.tasks", name) for name in tests)):
        found = list(_files(root / name))
        if not found:
            faults.append(Fault(f"there is no file {name}", key=key, remedy="paths start at the project folder"))
        files += [(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path), digest_file(path)) for path in found]
    if faults:
        raise InputError(faults)
    needed = needs_base(settings)
    notes = [note for language in languages for note in tagger_notes(language, settings.deidentify.names)] if settings.deidentify.enabled else []
    outside = Outside(root, tuple(files), base() if needed else None, maximum_tokens if needed else 0, tuple(tests), tuple(dict.fromkeys(notes)))
    return settings, outside


def _named(settings: PrepareSettings) -> Iterator[tuple[str, str]]:
    if settings.standardize.enabled:
        yield from (("standardize.lexicons", path) for path in settings.standardize.lexicons)
    if settings.quality.enabled and settings.quality.knowledge is not None:
        yield "quality.knowledge", settings.quality.knowledge
    if settings.decontaminate.enabled:
        yield from (("decontaminate.against", path) for path in settings.decontaminate.against)
    if settings.generate.enabled and settings.generate.knowledge is not None:
        yield "generate.knowledge", settings.generate.knowledge
    if settings.deidentify.enabled:
        yield from (("deidentify.names.detectors", item.folder) for item in settings.deidentify.names.detectors)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from sorted(item for item in path.rglob("*") if item.is_file())
