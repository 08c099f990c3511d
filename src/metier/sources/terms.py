"""On what terms data is held: reference, owner, purpose, retention, sensitive columns."""

from __future__ import annotations

import calendar
import re
from datetime import date, timedelta
from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from metier.config import Settings, load_yaml

__all__ = ["Terms", "categories", "expiry"]

_PERIOD = re.compile(r"P(?=\d)(?:(?P<years>\d+)Y)?(?:(?P<months>\d+)M)?(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?")


@cache
def categories() -> dict[str, dict[str, str]]:
    """Return the categories of sensitive data: name -> clauses that name it, by regime (`sensitive.yaml`)."""
    value: dict[str, dict[str, str]] = load_yaml(Path(__file__).with_name("sensitive.yaml")).value["categories"]
    return value


def expiry(retention: str, collected: date | None) -> date:
    """Return the last day on which data may be used: a date as it is, or a period of ISO 8601 (`P5Y`, `P18M`) counted from `collected`.

    Raises ValueError for what is neither, for a period without a day to count from and for one that ends after the year 9999.
    """
    try:
        return date.fromisoformat(retention)
    except ValueError:
        pass
    period = _PERIOD.fullmatch(retention)
    if period is None:
        raise ValueError(f"retention is a date (2031-12-31) or a period (P5Y, P18M, P90D), not {retention!r}")
    if collected is None:
        raise ValueError("a period of retention needs `collected`: the day from which it counts")
    parts = {name: int(value or 0) for name, value in period.groupdict().items()}
    month = collected.month - 1 + parts["months"] + 12 * parts["years"]
    try:
        year, month = collected.year + month // 12, month % 12 + 1
        day = min(collected.day, calendar.monthrange(year, month)[1])
        return date(year, month, day) + timedelta(weeks=parts["weeks"], days=parts["days"])
    except (ValueError, OverflowError, calendar.IllegalMonthError):
        raise ValueError("the period of retention ends after the year 9999") from None


class Terms(Settings):
    """Why and how long data may be used, who answers for it and what of it is sensitive."""

    reference: str = ""
    """The consent, contract, approval or clause of law that allows the use."""
    owner: str | None = None
    """Who answers for the data: a department or an office, not a person's name."""
    purpose: str | None = None
    """What the data may be used for."""
    collected: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """Day on which the data was collected or handed over."""
    retention: str | None = None
    """Last day of use (`2031-12-31`), or a period from `collected` (`P5Y`); data that is past it is refused."""
    sensitive: dict[str, str] | None = None
    """Columns with personal data and their category (`{diagnosis: health, name: identity}`); `{}` says that there is none."""

    @model_validator(mode="after")
    def _sound(self) -> Terms:
        if self.retention is not None:
            _ = self.expires
        for column, category in (self.sensitive or {}).items():
            if category not in categories():
                raise ValueError(f"the column {column!r} has the unknown category {category!r}; valid: {', '.join(categories())}")
        return self

    @property
    def expires(self) -> date | None:
        """The last day of use, or None where none is stated."""
        return None if self.retention is None else expiry(self.retention, date.fromisoformat(self.collected) if self.collected else None)
