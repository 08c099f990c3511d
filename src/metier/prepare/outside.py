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
from metier.privacy import vault as vaults
from metier.privacy.names import tagger_notes
from metier.privacy.settings import DeidentifySettings, with_policy

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
    """What an optional part that is not installed leaves undone, and what else a reader of the dataset has to know."""
    vault: tuple[Path, Path] | None = None
    """Folder and key file of the vault that keeps the originals."""
    vault_identity: str | None = None
    """What tells its tokens from those of other vaults; where the vault lies does not matter."""

    @property
    def digest(self) -> str:
        """Return the digest of files, base model, length, notes and the vault."""
        return digest_of([self.files, self.base.digest if self.base else None, self.maximum_tokens, self.notes, self.vault_identity])


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
    place, deidentify = _vault_of(with_policy(settings.deidentify, root), root)
    settings = settings.model_copy(update={"deidentify": deidentify})
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
    identity = None
    if place is not None:
        identity = vaults.vault_with_key(*place).identity
        notes.append("a vault keeps the originals: this data is pseudonymised, not anonymous (PIPL art. 73, GDPR art. 4(5))")
    limit = maximum_tokens if needed else 0
    return settings, Outside(root, tuple(files), base() if needed else None, limit, tuple(tests), tuple(dict.fromkeys(notes)), place, identity)


def _vault_of(settings: DeidentifySettings, root: Path) -> tuple[tuple[Path, Path] | None, DeidentifySettings]:
    """Return the vault's paths, and the settings as they belong to a dataset's identity: where a vault lies does not."""
    if settings.vault is None or not settings.enabled:
        return None, settings.model_copy(update={"vault": None})
    place = (root / Path(settings.vault.folder).expanduser(), root / Path(settings.vault.key).expanduser())
    return place, settings.model_copy(update={"vault": None, "replace": settings.replace or "token"})


def _named(settings: PrepareSettings) -> Iterator[tuple[str, str]]:
    if settings.standardize.enabled:
        yield from (("standardize.lexicons", path) for path in settings.standardize.lexicons)
    if settings.quality.enabled and settings.quality.knowledge is not None:
        yield "quality.knowledge", settings.quality.knowledge
    if settings.decontaminate.enabled:
        yield from (("decontaminate.against", path) for path in settings.decontaminate.against)
    if settings.generate.enabled and settings.generate.knowledge is not None:
        yield "generate.knowledge", settings.generate.knowledge
    if settings.augment.enabled and settings.augment.elsewhere is not None:
        yield "augment.elsewhere.path", settings.augment.elsewhere.path
    if settings.deidentify.enabled:
        yield from (("deidentify.names.detectors", item.folder) for item in settings.deidentify.names.detectors)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from sorted(item for item in path.rglob("*") if item.is_file())
