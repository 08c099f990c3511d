"""`metier data fetch`: what it lists, what it refuses, and what it says before anybody is asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.conftest import Invoke

CALLER = ("--set", "cik=0000320193", "--set", "organisation=Example Ltd", "--set", "email=data@example.org")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the pack that fetches, as the working folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "metier.yaml").write_text("metier: 1\nproject: x\npack: finance\nsources: [{path: data/*.txt, licence: internal}]\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_a_name_it_lists_what_the_pack_fetches_and_what_that_is_told(invoke: Invoke) -> None:
    listed = invoke("data", "fetch")
    assert listed.code == 0
    assert listed.out.startswith("edgar  SEC EDGAR")
    assert "--set forms=  forms to fetch, with commas between them (default 10-K)" in listed.out
    (entry,) = invoke("data", "fetch", "--json").document
    assert (entry["corpus"], entry["hosts"]) == ("edgar", ["www.sec.gov", "data.sec.gov"])
    assert "fetches no corpus" in invoke("data", "fetch", "--pack", "medical").out


def test_a_dry_run_says_whom_it_would_ask_for_what(project: Path, invoke: Invoke) -> None:
    planned = invoke("data", "fetch", "edgar", *CALLER, "--set", "forms=10-K, 8-K", "--dry-run")
    assert planned.code == 0
    assert planned.out.startswith("would ask www.sec.gov and data.sec.gov for edgar, into data/edgar, with\n  cik: 0000320193\n  forms: 10-K, 8-K\n")
    document = invoke("data", "fetch", "edgar", *CALLER, "--dry-run", "--json").document
    assert (document["folder"], document["values"]["forms"], document["values"]["limit"]) == ("data/edgar", ["10-K"], None)
    assert list((project / "data").iterdir()) == []


def test_it_refuses_to_ask_anybody_unless_that_is_allowed(project: Path, invoke: Invoke) -> None:
    refused = invoke("data", "fetch", "edgar", *CALLER, "--to", "data/edgar")
    assert (refused.code, refused.out) == (2, "")
    assert "online: fetching edgar asks www.sec.gov and data.sec.gov and tells them the values of --set\n    -> allow it with --online" in refused.err
    assert list((project / "data").iterdir()) == []


def test_every_fault_comes_at_once_with_exit_2(invoke: Invoke) -> None:
    wrong = invoke("data", "fetch", "edgar", "--set", "ciq=1", "--set", "email=nobody", "--to", "..")
    assert (wrong.code, wrong.out) == (2, "")
    for said in (
        "set ciq:",
        "did you mean 'cik'?",
        "set cik: is missing",
        "set organisation: is missing",
        "'nobody' is no value",
        "to: is not a folder",
        "online:",
    ):
        assert said in wrong.err
    assert "did you mean 'edgar'?" in invoke("data", "fetch", "edgr").err
    assert "'cik' is no NAME=VALUE" in invoke("data", "fetch", "edgar", "--set", "cik").err
    assert "no such project folder" in invoke("data", "fetch", "edgar", "--pack", "finance", "--project", "nowhere").err


def test_without_a_project_file_the_pack_has_to_be_named(project: Path, invoke: Invoke) -> None:
    (project / "metier.yaml").unlink()
    unnamed = invoke("data", "fetch", "edgar")
    assert unnamed.code == 2
    assert "no pack is named" in unnamed.err
    assert "finance" in unnamed.err


def test_a_project_file_of_another_name_names_the_pack(project: Path, invoke: Invoke) -> None:
    (project / "metier.yaml").rename(project / "other.yaml")
    listed = invoke("data", "fetch", "--project", project / "other.yaml")
    assert listed.code == 0, listed.err


def test_a_library_that_is_not_installed_is_named_with_its_extra(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sec_edgar_downloader", None)
    missing = invoke("data", "fetch", "edgar", *CALLER, "--online")
    assert missing.code == 2
    assert "pip install 'metier[edgar]'" in missing.err


def test_what_is_printed_for_machines_is_one_document(invoke: Invoke) -> None:
    assert json.loads(invoke("data", "fetch", "--json").out)[0]["corpus"] == "edgar"
