"""Corpora by name: what a pack knows of a well-known corpus, joined with what the project says of its own copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from metier.errors import Fault, SourceError, nearest
from metier.packs import Corpus, Pack
from metier.sources.settings import ReadSettings, SourceSettings

__all__ = ["Reader", "Reading", "pattern_of", "reading_of"]

Reader = Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Reading:
    """How a source is read: its settings, filled up from its corpus, and the corpus's own function."""

    settings: SourceSettings
    corpus: Corpus | None = None
    reader: Reader | None = None

    @property
    def container(self) -> str:
        """Kind of the corpus's files, or nothing where the suffix says it."""
        return "" if self.corpus is None else "text" if self.corpus.format == "file" else self.corpus.format

    @property
    def whole(self) -> bool:
        """Whether a file is one row, for the corpus's function to take apart."""
        return self.corpus is not None and self.corpus.format == "file"


def reading_of(settings: SourceSettings, pack: Pack | None, key: str) -> Reading:
    """Return how a source is read. Raises SourceError for a corpus that the pack does not know, naming the nearest that it does."""
    if settings.corpus is None:
        return Reading(settings)
    corpora: Sequence[Corpus] = pack.corpora if pack else ()
    corpus = next((item for item in corpora if item.name == settings.corpus), None)
    if corpus is None or pack is None:
        what = f"the pack {pack.facts.name!r} knows no corpus {settings.corpus!r}" if pack else "no pack is given that knows corpora"
        raise SourceError(Fault(what, key=f"{key}.corpus", remedy=nearest(settings.corpus, [item.name for item in corpora])))
    return Reading(_filled(settings, corpus, key), corpus, pack.readers[corpus.reader] if corpus.reader else None)


def _filled(settings: SourceSettings, corpus: Corpus, key: str) -> SourceSettings:
    """Return the settings of a source with what it leaves open taken from its corpus."""
    try:
        read = ReadSettings.model_validate_json(_json(corpus.read)) if settings.read == ReadSettings() else settings.read
    except ValidationError as error:
        raise SourceError(Fault(f"the corpus {corpus.name!r} has settings that cannot be read: {error.errors()[0]['msg']}", key=f"{key}.corpus")) from None
    terms = settings.basis if settings.basis.sensitive is not None else settings.basis.model_copy(update={"sensitive": corpus.sensitive})
    own = {name: getattr(settings, name) or getattr(corpus, name) for name in ("subject", "group", "time", "language")}
    own["licence"] = settings.licence or corpus.about.licence
    own["rows"] = settings.rows or corpus.element
    return settings.model_copy(update={**own, "columns": {**corpus.columns, **settings.columns}, "read": read, "basis": terms})


def _json(value: Any) -> bytes:
    import json

    return json.dumps(value, ensure_ascii=False).encode()


def pattern_of(reading: Reading, root: Path) -> str:
    """Return the pattern of a source's files: its path, or the corpus's own pattern below it where the path is a folder."""
    path = reading.settings.path
    if reading.corpus is not None and (root / path).is_dir():
        return f"{path.rstrip('/')}/{reading.corpus.files}"
    return path
