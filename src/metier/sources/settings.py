"""What a project says of one source of data."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from metier.config import Settings

__all__ = ["Format", "SourceSettings"]

Format: TypeAlias = Literal["auto", "messages", "alpaca", "sharegpt", "prompt-completion", "csv", "tsv", "parquet", "xml"]


class SourceSettings(Settings):
    """One source: files of one form under one licence."""

    path: str = Field(min_length=1)
    """File or glob (`data/**/*.jsonl`), relative to the project folder; `..` and symbolic links that lead out of it are refused.
    An absolute path is taken as written."""
    format: Format = "auto"
    """Form of a row, or kind of file; `auto` tells the file by its suffix and the row by its keys."""
    encoding: str = "auto"
    """Encoding of text files; `auto` decides between UTF-8 and GB18030 by strict decoding of the whole file."""
    licence: str = Field(min_length=1)
    """Terms under which the data may be used."""
    basis: str = ""
    """Why the data may be used: the consent, contract or ethics approval."""
    columns: dict[str, str] = {}
    """Which column holds what: `{prompt: question, completion: answer}`; names that a record has no field for become metadata."""
    rows: str | None = None
    """XML only: name of the element that is one row. Columns then name children (`Question`), their attributes (`Question@type`) or the row's own (`@id`)."""
    subject: str | None = None
    """Column with the person a row is about; it becomes a pseudonym."""
    group: str | None = None
    """Column whose rows have to stay in one split."""
    time: str | None = None
    """Column with the date of a row."""
    language: str | None = None
    """Language of the texts; where it is not given it is told from the text."""
    task: str | None = None
    """Task that conversations of this source belong to."""
    templates: tuple[str, ...] = ()
    """Names of the templates to apply; none named: every template that fits."""
    malformed: float | None = Field(default=None, ge=0, le=1)
    """Share of malformed rows up to which the source is accepted; malformed rows are kept in the drop ledger."""

    @model_validator(mode="after")
    def _sound(self) -> SourceSettings:
        if ".." in PurePosixPath(self.path).parts:
            raise ValueError(f"{self.path!r} leads upwards; name a path inside the project, or write the absolute path")
        if self.format == "xml" and not self.rows:
            raise ValueError("XML needs `rows`: the name of the element that is one row, for instance rows: QAPair")
        for name in ("subject", "group", "time"):
            if name in self.columns:
                raise ValueError(f"give the {name} column by the key `{name}`, not under `columns`")
        return self
