"""What a project says of one source of data."""

from __future__ import annotations

from datetime import date
from pathlib import PurePosixPath
from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from metier.config import Settings
from metier.sources.documents import ChunkSettings
from metier.sources.missing import MissingSettings
from metier.sources.paths import keys_of
from metier.sources.terms import Terms

__all__ = ["Format", "ReadSettings", "SourceSettings"]

Format: TypeAlias = Literal[
    "auto",
    "messages",
    "alpaca",
    "sharegpt",
    "prompt-completion",
    "csv",
    "tsv",
    "excel",
    "parquet",
    "xml",
    "conll",
    "text",
    "markdown",
    "html",
    "pdf",
    "docx",
    "xml-prose",
]


class ReadSettings(Settings):
    """How files are read: documents in chunks, sheets of a workbook, missing values."""

    chunk: ChunkSettings = ChunkSettings()
    missing: MissingSettings = MissingSettings()
    sheets: tuple[str, ...] = ()
    """Excel: names of the sheets to read, `["*"]` for all; a workbook with one visible sheet needs none."""
    header: int | None = Field(default=None, ge=1)
    """Excel: number of the row that names the columns; by default the first that is not empty."""
    hidden: Literal["keep", "drop"] = "keep"
    """Excel: whether hidden rows are read like the others (and counted) or dropped into the ledger."""


class SourceSettings(Settings):
    """One source: files of one form under one licence."""

    path: str = Field(min_length=1)
    """File or glob (`data/**/*.jsonl`), relative to the project folder; `..` and symbolic links that lead out of it are refused.
    An absolute path is taken as written."""
    corpus: str | None = None
    """Name of a well-known corpus of which `path` is your own copy; the pack that knows it says how its files are read."""
    format: Format = "auto"
    """Form of a row, or kind of file; `auto` tells the file by its suffix and the row by its keys. `conll`: a word a line with its tag
    (BIO, BIOES, BILOU) in the last column, an empty line after each sentence."""
    encoding: str = "auto"
    """Encoding of text files; `auto` decides between UTF-8 and GB18030 by strict decoding of the whole file."""
    licence: str = ""
    """Terms under which the data may be used: an SPDX identifier (`CC-BY-4.0`) or a name of your own (`internal`); a corpus brings its own."""
    basis: Terms = Terms()
    """Why the data may be used: the consent, contract or approval, as text; or that with owner, purpose, retention and sensitive columns."""
    columns: dict[str, str] = {}
    """Which column holds what: `{prompt: question, completion: answer}`; names that a record has no field for become metadata. Where labels are
    taught: `text`, `label`, `labels` (several: a list, or names with `|` between them), `pair` (a second text), `spans` (a list of
    `{start, end, type}`, places in code points), or `tokens` and `tags`."""
    rows: str | None = None
    """Where the rows lie. XML: name of the element that is one row; columns then name children (`Question`), their attributes (`Question@type`), the
    row's own (`@id`), or what stands before the rows (`/Focus`, `/@url`). JSON: the keys that lead to the rows (`data.paragraphs.qas`), through every
    list on the way, `*` for any key, `["v1.0"]` for a key that holds a dot; columns then name the row's keys, or what stands around it (`/data.title`)."""
    read: ReadSettings = ReadSettings()
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

    @field_validator("basis", mode="before")
    @classmethod
    def _reference(cls, value: Any) -> Any:
        return {"reference": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _sound(self) -> SourceSettings:
        if ".." in PurePosixPath(self.path).parts:
            raise ValueError(f"{self.path!r} leads upwards; name a path inside the project, or write the absolute path")
        if not self.licence and self.corpus is None:
            raise ValueError("`licence` is required: the terms under which the data may be used, for instance licence: internal")
        if self.format == "xml" and not self.rows:
            raise ValueError("XML needs `rows`: the name of the element that is one row, for instance rows: QAPair; to read it as text write format: xml-prose")
        if self.rows is not None:
            named = [*self.columns.values(), self.subject, self.group, self.time]
            for path in (self.rows, *(name.removeprefix("/").removesuffix("@key") for name in named if name and name.startswith("/"))):
                keys_of(path)
        for name in ("subject", "group", "time"):
            if name in self.columns:
                raise ValueError(f"give the {name} column by the key `{name}`, not under `columns`")
        return self

    def expired(self, today: date) -> bool:
        """Tell whether the data must not be used any more on a day."""
        expires = self.basis.expires
        return expires is not None and expires < today
