"""Filings are fetched by the real library from a server of this machine that answers as the SEC does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.conftest import Invoke
from metier import packs
from metier.records import Drop
from metier.sources import SourceSettings, read

library = pytest.importorskip("sec_edgar_downloader")

TICKERS = {"fields": ["cik", "name", "ticker", "exchange"], "data": [[320193, "Example Inc.", "EXMP", "Nasdaq"]]}
RECENT = [("0000320193-23-000106", "2023-11-03", "10-K"), ("0000320193-23-000077", "2023-08-04", "10-Q"), ("0000320193-22-000108", "2022-10-28", "10-K")]
OLDER = [("0000320193-21-000105", "2021-10-29", "10-K"), ("0000320193-21-000106", "2021-11-02", "10-K/A")]
SUBMISSION = """<SEC-DOCUMENT>{number}.txt : {plain}
<SEC-HEADER>{number}.hdr.sgml : {plain}
ACCESSION NUMBER:\t\t{number}
CONFORMED SUBMISSION TYPE:\t{form}
FILED AS OF DATE:\t\t{plain}
FILER:
\tCOMPANY DATA:
\t\tCOMPANY CONFORMED NAME:\t\t\tExample Inc.
\t\tCENTRAL INDEX KEY:\t\t\t0000320193
</SEC-HEADER>
<DOCUMENT>
<TYPE>{form}
<SEQUENCE>1
<FILENAME>a.htm
<TEXT>
<html><body><p>Item 1A. Risk Factors</p><p>Things break in {plain}.</p></body></html>
</TEXT>
</DOCUMENT>
</SEC-DOCUMENT>
"""
CALLER = ("--set", "organisation=Example Ltd", "--set", "email=data@example.org")


def listing(filings: list[tuple[str, str, str]]) -> dict[str, list[str]]:
    columns = zip(*filings, strict=True)
    return {**dict(zip(("accessionNumber", "filingDate", "form"), map(list, columns), strict=True)), "primaryDocument": ["a.htm"] * len(filings)}


def answers() -> dict[str, bytes]:
    """Return what the SEC answers, by path, in its own forms."""
    first = {"cik": "320193", "name": "Example Inc.", "filings": {"recent": listing(RECENT), "files": [{"name": "CIK0000320193-submissions-001.json"}]}}
    found: dict[str, Any] = {
        "/files/company_tickers_exchange.json": TICKERS,
        "/submissions/CIK0000320193.json": first,
        "/submissions/CIK0000320193-submissions-001.json": listing(OLDER),
    }
    pages = {path: json.dumps(value).encode() for path, value in found.items()}
    for number, day, form in [*RECENT, *OLDER]:
        text = SUBMISSION.format(number=number, plain=day.replace("-", ""), form=form)
        pages[f"/Archives/edgar/data/320193/{number.replace('-', '')}/{number}.txt"] = text.encode()
    return pages


@dataclass
class Sec:
    """The server: what it answers and what it was asked."""

    pages: dict[str, bytes] = field(default_factory=answers)
    asked: list[tuple[str, str]] = field(default_factory=list)


@pytest.fixture
def sec(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sec]:
    state = Sec()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers["User-Agent"]))
            page = state.pages.get(self.path)
            self.send_response(404 if page is None else 200)
            self.send_header("Content-Length", str(len(page or b"")))
            self.end_headers()
            self.wfile.write(page or b"")

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    for module, name in (("_sec_gateway", "URL_CIK_MAPPING"), ("_orchestrator", "URL_FILING"), ("_orchestrator", "URL_SUBMISSIONS")):
        target = f"sec_edgar_downloader.{module}.{name}"
        original = getattr(__import__(f"sec_edgar_downloader.{module}", fromlist=[name]), name)
        monkeypatch.setattr(target, original.replace("https://www.sec.gov", address).replace("https://data.sec.gov", address))
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


def fetch(invoke: Invoke, project: Path, *given: str, cik: str = "320193") -> Any:
    values = [part for item in given for part in ("--set", item)]
    where = ("--pack", "finance", "--project", project, "--to", "data/edgar", "--online")
    return invoke("data", "fetch", "edgar", *where, *CALLER, "--set", f"cik={cik}", *values)


def test_filings_are_fetched_and_the_printed_lines_read_them(sec: Sec, project: Path, invoke: Invoke) -> None:
    ended = fetch(invoke, project, "forms=10-K,10-Q")
    assert ended.code == 0, ended.err
    names = [f"data/edgar/sec-edgar-filings/0000320193/{form}/{number}/full-submission.txt" for number, _, form in [*RECENT, OLDER[0]]]
    assert [line.strip() for line in ended.out.splitlines() if "full-submission" in line] == sorted(names)
    assert {agent for _, agent in sec.asked} == {"Example Ltd data@example.org"}
    (source,) = yaml.safe_load(ended.out.partition("metier.yaml:\n")[2])
    records = [item for item in read([SourceSettings(**source)], project, pack=packs.load("finance")) if not isinstance(item, Drop)]
    assert {(record.metadata["form"], record.group, record.metadata["item"]) for record in records} == {
        ("10-K", "0000320193", "1A"),
        ("10-Q", "0000320193", "1A"),
    }
    assert {record.time for record in records} == {"2023-11-03", "2023-08-04", "2022-10-28", "2021-10-29"}


def test_limits_days_and_amendments_are_kept_and_nothing_is_fetched_twice(sec: Sec, project: Path, invoke: Invoke) -> None:
    assert "1 files in data/edgar" in fetch(invoke, project, "limit=1").out
    assert sum("Archives" in path for path, _ in sec.asked) == 1
    ended = fetch(invoke, project, "after=2021-11-01", "before=2022-12-31", "amendments=yes")
    assert "3 files in data/edgar; 1 of them had been there" in ended.out
    assert fetch(invoke, project, "after=2021-11-01", "amendments=yes").out.count("full-submission") == 3
    assert sum("Archives" in path for path, _ in sec.asked) == 3


def test_a_filing_that_does_not_come_is_told_and_the_next_call_gets_it(sec: Sec, project: Path, invoke: Invoke) -> None:
    path = "/Archives/edgar/data/320193/000032019323000106/0000320193-23-000106.txt"
    whole = sec.pages.pop(path)
    ended = fetch(invoke, project)
    assert (ended.code, ended.out) == (2, "")
    assert "0000320193-23-000106: the filing could not be fetched; the others are there" in ended.err
    sec.pages[path] = whole[:400]
    ended = fetch(invoke, project)
    assert ended.code == 2
    assert "full-submission.txt: the submission has no end" in ended.err
    (cut,) = project.rglob("0000320193-23-000106/full-submission.txt")
    cut.unlink()
    sec.pages[path] = whole
    assert "3 files in data/edgar; 2 of them had been there" in fetch(invoke, project).out


@pytest.mark.parametrize(
    ("given", "cik", "said"),
    [
        (["forms=10K"], "320193", "set forms: '10K' is no form of EDGAR\n    -> did you mean '10-K'?"),
        (["forms=nothing like it"], "320193", "write it as EDGAR does"),
        (["after=2024-13-01"], "320193", "set after: '2024-13-01' is no day"),
        (["after=2024-01-01", "before=2023-01-01"], "320193", "the first day is later than the last"),
        ([], "1", "edgar could not be fetched: 404 Client Error"),
        (["forms=20-F"], "320193", "have nothing of edgar that fits"),
    ],
)
def test_what_cannot_be_fetched_says_why(sec: Sec, project: Path, invoke: Invoke, given: list[str], cik: str, said: str) -> None:
    ended = fetch(invoke, project, *given, cik=cik)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_an_answer_of_another_form_is_told(sec: Sec, project: Path, invoke: Invoke) -> None:
    for path, page in (("/submissions/CIK0000320193.json", b"{}"), ("/files/company_tickers_exchange.json", b"<html>")):
        sec.pages[path] = page
        ended = fetch(invoke, project)
        assert ended.code == 2
        assert "has not the form that is known" in ended.err or "could not be fetched" in ended.err
