"""Missing values: what counts as one is declared, and what becomes of the row too. Nothing is guessed, every case is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from pydantic import Field, model_validator

from metier.config import Settings

__all__ = ["ColumnPolicy", "Missing", "MissingSettings", "MissingValueError", "Policy"]

Policy: TypeAlias = Literal["keep", "drop", "fill", "error"]
Value: TypeAlias = bool | int | float | str


class ColumnPolicy(Settings):
    """What holds for one column instead."""

    values: tuple[Value, ...] | None = None
    """Values that count as missing in this column, instead of those of the source."""
    policy: Policy
    """What becomes of the row, as for the whole source."""
    fill: Value | None = None
    """What is put in with the policy `fill`."""

    @model_validator(mode="after")
    def _sound(self) -> ColumnPolicy:
        _check_fill(self.policy, self.fill)
        return self


class MissingSettings(Settings):
    """What counts as a missing value and what happens to its row. Null (an empty cell, NaN) and blank text always count."""

    values: tuple[Value, ...] = Field(default=())
    """Values that count as missing besides, compared without surrounding blanks (`["NA", "-", -99]`); none are guessed."""
    policy: Policy = "keep"
    """`keep`: the row stays and the value is empty; `drop`: the row goes to the drop ledger; `fill`: `fill` is put in; `error`: reading stops."""
    fill: Value | None = None
    """What is put in with the policy `fill`."""
    columns: dict[str, ColumnPolicy] = {}
    """Columns for which something else holds: `{age: {policy: fill, fill: 0}}`."""

    @model_validator(mode="after")
    def _sound(self) -> MissingSettings:
        _check_fill(self.policy, self.fill)
        return self


def _check_fill(policy: Policy, fill: Value | None) -> None:
    if (policy == "fill") != (fill is not None):
        raise ValueError("the policy `fill` needs a value `fill`, and only it takes one")


class MissingValueError(Exception):
    """A value is missing and the policy says that this is an error; the text is the column's name."""


class Missing:
    """Applies the policies to the columns of a file that are used, and counts."""

    def __init__(self, settings: MissingSettings, used: Iterable[str]) -> None:
        """Watch the columns `used` and those that have a policy of their own."""
        self.found: Counter[str] = Counter()
        self.filled: Counter[str] = Counter()
        self.dropped = 0
        general = ColumnPolicy(policy=settings.policy, fill=settings.fill)
        self._policies = {name: settings.columns.get(name, general) for name in dict.fromkeys([*used, *settings.columns])}
        self._marks = {
            name: {_plain(value) for value in (settings.values if policy.values is None else policy.values)} for name, policy in self._policies.items()
        }

    def apply(self, values: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
        """Return a row's values after the policies, and the column for which the row is dropped, or None.

        A marker becomes empty text; null and blank text stay as they are. Raises MissingValueError for the policy `error`.
        """
        changed: dict[str, Any] = {}
        dropped: str | None = None
        for name, policy in self._policies.items():
            if name not in values or not self._is_missing(name, values[name]):
                continue
            self.found[name] += 1
            if policy.policy == "error":
                raise MissingValueError(name)
            if policy.policy == "drop":
                dropped = dropped or name
            elif policy.policy == "fill":
                self.filled[name] += 1
                changed[name] = policy.fill
            elif values[name] is not None and _plain(values[name]) in self._marks[name]:
                changed[name] = ""
        self.dropped += dropped is not None
        return ({**values, **changed} if changed else values), dropped

    def _is_missing(self, name: str, value: Any) -> bool:
        if value is None or (isinstance(value, str) and not value.strip()):
            return True
        return isinstance(value, bool | int | float | str) and _plain(value) in self._marks[name]


def _plain(value: Any) -> Any:
    """Return what two writings of one value have in common: text without surrounding blanks, the text of a number."""
    return value.strip() if isinstance(value, str) else str(value)
