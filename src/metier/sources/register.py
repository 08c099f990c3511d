"""The register of sources: under which licence, on what basis, by whom, how long and with which sensitive columns; and what of that is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal

from metier.errors import Fault, nearest
from metier.sources.settings import SourceSettings
from metier.sources.terms import categories

__all__ = ["Finding", "check_register", "licence_kind", "terms_entry"]

_JOIN = re.compile(r"\s+(?:AND|OR|WITH)\s+|[()]")
_OWN = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the register of a source lacks, or that has run out: its place in the project file, and what to do."""

    key: str
    kind: Literal["missing", "expired", "unknown"]
    what: str
    remedy: str

    def fault(self, source: str) -> Fault:
        """Return the finding as a fault of a source."""
        return Fault(self.what, source, key=self.key, remedy=self.remedy)


@cache
def _identifiers() -> dict[str, str]:
    """SPDX identifiers and exceptions (list 3.28.0) by their small letters."""
    return {name.lower(): name for name in Path(__file__).with_name("spdx.txt").read_text(encoding="ascii").split()}


def licence_kind(licence: str) -> tuple[Literal["spdx", "named"], str | None]:
    """Return whether a licence is an SPDX identifier or expression, or a name of one's own; and the identifier that it seems to mean but misspells.

    Expressions join identifiers by AND, OR and WITH; `LicenseRef-...` counts as an identifier, as SPDX says (specification 2.3, annex D).
    """
    parts = [part.strip().removesuffix("+") for part in _JOIN.split(licence) if part.strip()]
    if parts and all(part in _identifiers().values() or _OWN.fullmatch(part) for part in parts):
        return "spdx", None
    plain = re.sub(r"[\s_]+", "-", licence.strip()).lower()
    for candidate in (plain, f"{plain}.0", f"{plain}-only"):
        if candidate in _identifiers():
            return "named", _identifiers()[candidate]
    return "named", None


def terms_entry(settings: SourceSettings) -> dict[str, Any]:
    """Return what a source says of its terms, as it stands in the register of a dataset; `warnings` are the keys that say nothing."""
    terms = settings.basis
    expires = terms.expires
    return {
        "licence_kind": licence_kind(settings.licence)[0],
        "owner": terms.owner,
        "purpose": terms.purpose,
        "collected": terms.collected,
        "retention": terms.retention,
        "expires": None if expires is None else expires.isoformat(),
        "sensitive": None if terms.sensitive is None else {name: {"category": kind, **categories()[kind]} for name, kind in terms.sensitive.items()},
        "warnings": [finding.what for finding in _missing(settings, "sources")],
    }


def check_register(sources: Sequence[SourceSettings], *, today: date | None = None) -> list[Finding]:
    """Return everything that the sources of a project do not say of their terms, and those whose retention has run out.

    `today` is the day to compare with; None leaves retention unchecked.
    """
    found: list[Finding] = []
    for place, settings in enumerate(sources):
        key = f"sources[{place}]"
        found += _missing(settings, key)
        if today is not None and settings.expired(today):
            what = f"the data may be used until {settings.basis.expires}, and today is {today}"
            found.append(Finding(f"{key}.basis.retention", "expired", what, "delete the data and the source, or state the new date with what allows it"))
    return found


def _missing(settings: SourceSettings, key: str) -> Iterator[Finding]:
    terms: Mapping[str, Any] = {name: getattr(settings.basis, name) for name in ("reference", "owner", "purpose", "retention", "sensitive")}
    kind, meant = licence_kind(settings.licence)
    if meant is not None and kind == "named":
        yield Finding(f"{key}.licence", "unknown", f"the licence {settings.licence!r} is no SPDX identifier", nearest(meant, [meant]))
    told = {
        "reference": ("no lawful basis or consent is referred to", "basis: {reference: ...}"),
        "owner": ("nobody is named who answers for the data", "basis: {owner: an office}"),
        "purpose": ("no purpose is stated", "basis: {purpose: ...}"),
        "retention": ("no retention is stated", "basis: {retention: 2031-12-31}, or P5Y with collected"),
        "sensitive": ("no inventory of sensitive columns", "basis: {sensitive: {column: category}}, or {} where there are none"),
    }
    for name, value in terms.items():
        if value is None or value == "":
            what, remedy = told[name]
            yield Finding(f"{key}.basis.{name}", "missing", what, f"write {remedy}")
