"""Filings fetched from EDGAR by CIK, into a folder that `corpus: edgar` reads. The only part of this pack that asks another machine."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from datetime import date
from pathlib import Path
from typing import Any

from metier.errors import Fault, InputError, MissingExtra, nearest

__all__ = ["submissions"]

_ACCESSION = re.compile(r"[0-9]{10}-[0-9]{2}-[0-9]{6}")
_ENDS = (b"</SEC-DOCUMENT>", b"-----END PRIVACY-ENHANCED MESSAGE-----")
_LONGEST_END = 64


def submissions(values: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Fetch the complete submissions of a company into `folder` and yield their files, one form after the other.

    The values are those of the corpus `edgar` in corpora.yaml. The SEC asks that every caller say who they are: `organisation` and `email`
    become the User-Agent. At most 10 requests a second are sent (sec-edgar-downloader keeps to it), and a file that is there is not fetched
    again. Raises InputError for forms and dates that are none, and at the end for filings that did not come whole; OSError (of which every
    error of `requests` is one) where the SEC does not answer or refuses.
    """
    try:
        from sec_edgar_downloader import Downloader
    except ImportError:
        raise MissingExtra("sec-edgar-downloader", "edgar", "fetching filings") from None
    if faults := [*_form_faults(values["forms"], Downloader.supported_forms), *_date_faults(values)]:
        raise InputError(faults)
    cik = values["cik"].zfill(10)
    lost: list[str] = []
    try:
        getter = Downloader(values["organisation"], values["email"], str(folder))
        for form in values["forms"]:
            # The library says on stdout which filings it could not get, and goes on.
            with redirect_stdout(io.StringIO()) as said:
                getter.get(form, cik, limit=values["limit"], after=values["after"], before=values["before"], include_amends=values["amendments"] == "yes")
            lost += dict.fromkeys(_ACCESSION.findall(said.getvalue()))
            yield from sorted((folder / "sec-edgar-filings" / cik / form).rglob("full-submission.txt"))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        what = f"the SEC's answer has not the form that is known ({type(error).__name__}: {error})"
        raise InputError(Fault(what, remedy="try again later, or with a newer sec-edgar-downloader")) from None
    if faults := _incomplete(lost, folder / "sec-edgar-filings" / cik):
        raise InputError(faults)


def _form_faults(forms: tuple[str, ...], known: list[str]) -> Iterator[Fault]:
    for form in forms:
        if form not in known:
            near = nearest(form, known)
            remedy = near if not near.startswith("valid") else "write it as EDGAR does: 10-K, 10-Q, 8-K, 20-F, DEF 14A ..."
            yield Fault(f"{form!r} is no form of EDGAR", key="set forms", remedy=remedy)


def _date_faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    days = {}
    for name in ("after", "before"):
        try:
            days[name] = date.fromisoformat(values[name] or {"after": "1994-01-01", "before": date.today().isoformat()}[name])
        except ValueError:
            yield Fault(f"{values[name]!r} is no day", key=f"set {name}", remedy="write year-month-day, for instance 2024-01-31")
    if len(days) == 2 and days["after"] > days["before"]:
        yield Fault("the first day is later than the last", key="set after", remedy="exchange after and before")


def _incomplete(lost: list[str], folder: Path) -> list[Fault]:
    """Return a fault for each filing that did not come, or not to its end."""
    again = "run the command again: what is there is not fetched a second time"
    faults = [Fault("the filing could not be fetched; the others are there", number, remedy=again) for number in lost]
    for path in sorted(folder.rglob("full-submission.txt")):
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _LONGEST_END))
            tail = stream.read()
        if not any(end in tail for end in _ENDS):
            faults.append(Fault("the submission has no end; it was cut off or is none", path, remedy=f"delete the file and {again}"))
    return faults
