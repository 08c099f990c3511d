"""Settings of the `audit:` section."""

from __future__ import annotations

from pydantic import Field, field_validator

from metier.config import Settings

__all__ = ["AuditSettings"]


class AuditSettings(Settings):
    """The `audit:` section: where the log lies."""

    url: str | None = None
    """Database of the log as an SQLAlchemy URL (`postgresql://host/name`); none: `.metier/ledger.sqlite`. No password in it: PGPASSWORD or ~/.pgpass."""
    head_every: int = Field(default=1024, ge=1)
    """Entries after which a signed head is stored for good; the newest head is always stored."""
    heads: str | None = None
    """File that keeps the signed heads a second time, relative to the project; best on another disk. None: `.metier/ledger.heads.jsonl`."""
    keys: str | None = None
    """Folder of the log's keys, relative to the project; none: `.metier/keys`."""

    @field_validator("url")
    @classmethod
    def _no_secret(cls, value: str | None) -> str | None:
        place = (value or "").partition("://")[2].partition("/")[0]
        if ":" in place.rpartition("@")[0]:
            raise ValueError("a password does not belong into the project file; give it by PGPASSWORD or ~/.pgpass")
        return value
