"""Filings fetched from EDGAR by CIK, into a folder that `corpus: edgar` reads. The only part of this pack that asks another machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from metier.errors import Fault, InputError, MissingExtra

__all__ = ["download"]

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def download(
    cik: str,
    folder: Path,
    *,
    organisation: str,
    email: str,
    forms: Sequence[str] = ("10-K",),
    limit: int | None = None,
    online: bool = False,
) -> list[Path]:
    """Fetch the complete submissions of a company into `folder` and return their files.

    The SEC asks that every caller say who they are: `organisation` and `email` become the User-Agent. At most 10 requests a second are sent
    (sec-edgar-downloader keeps to it). Raises InputError without `online`, for a CIK that is none and for a caller without a name.
    """
    faults = []
    if not online:
        faults.append(Fault("fetching filings asks www.sec.gov", key="online", remedy="allow it with --online, or name a folder of submissions as path"))
    if not re.fullmatch(r"\d{1,10}", cik):
        faults.append(Fault(f"{cik!r} is no CIK", key="cik", remedy="write up to ten digits, for instance 0000320193"))
    if not organisation.strip() or not _EMAIL.fullmatch(email):
        faults.append(Fault("the SEC asks who is calling", key="email", remedy="give your organisation and an e-mail address"))
    if faults:
        raise InputError(faults)
    try:
        from sec_edgar_downloader import Downloader
    except ImportError:
        raise MissingExtra("sec-edgar-downloader", "edgar", "fetching filings") from None
    getter = Downloader(organisation, email, str(folder))
    for form in forms:
        getter.get(form, cik.zfill(10), limit=limit)
    return sorted(folder.rglob("full-submission.txt"))
