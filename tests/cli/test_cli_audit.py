"""`metier audit`: verify, head, export, proof, on a project and on what was taken from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.conftest import Invoke
from metier.audit import AuditSettings, open_project_ledger
from metier.events import Event, now
from metier.project import new_project

HOSTILE = "mallory\r\n\x1b[2J\u2028\u202egnp"


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A project with a log of twelve entries, one of them hostile."""
    folder = tmp_path / "hives"
    new_project(folder, name="hives", pack="example")
    with open_project_ledger(folder, AuditSettings()) as ledger:
        ledger.append([Event("access", "keeper", now(), {"n": number}, {"note": number}) for number in range(11)])
        ledger.record(Event("access", HOSTILE, now(), {"model": HOSTILE}))
    return folder


def test_a_project_verifies(logged: Path, invoke: Invoke) -> None:
    ended = invoke("audit", "verify", logged)
    assert ended.code == 0
    assert ended.out.startswith("log: verifies\n  12 entries, root ")
    document = invoke("audit", "verify", logged / "metier.yaml", "--json").document
    assert (document["intact"], document["size"], document["pinned"]) == (True, 12, True)
    assert not (logged / "ledger.sqlite").exists()


def test_a_cut_log_ends_with_exit_code_1(logged: Path, invoke: Invoke) -> None:
    for path in (logged / ".metier").glob("ledger.heads.jsonl"):
        path.unlink()
    ended = invoke("audit", "verify", logged)
    assert ended.code == 1
    assert "log: DOES NOT VERIFY" in ended.out
    assert "is gone" in ended.out
    assert invoke("audit", "head", logged, "--restore").code == 0
    assert invoke("audit", "verify", logged, "--json").document["size"] == 13


def test_the_head_is_what_to_keep(logged: Path, tmp_path: Path, invoke: Invoke) -> None:
    ended = invoke("audit", "head", logged)
    (tmp_path / "kept").write_text(ended.out, encoding="utf-8")
    assert ended.out.splitlines()[1] == "12"
    assert invoke("audit", "head", logged, "--json").document["note"] == ended.out
    assert invoke("audit", "verify", logged, "--head", tmp_path / "kept").code == 0
    other = tmp_path / "other"
    new_project(other, name="other", pack="example")
    with open_project_ledger(other, AuditSettings()) as ledger:
        ledger.record(Event("access", "keeper", now()))
    ended = invoke("audit", "verify", other, "--head", tmp_path / "kept")
    assert ended.code == 1
    assert "belongs to another log" in ended.out


def test_a_project_is_verified_by_the_name_of_its_file_too(logged: Path, tmp_path: Path, invoke: Invoke) -> None:
    folder = Path(shutil.copytree(logged, tmp_path / "named"))
    (folder / "metier.yaml").rename(folder / "other.yaml")
    assert invoke("audit", "verify", folder / "other.yaml").code == 0


def test_an_export_and_a_proof_verify_without_the_project(logged: Path, tmp_path: Path, invoke: Invoke) -> None:
    ended = invoke("audit", "export", tmp_path / "log.jsonl", logged)
    assert ended.code == 0
    assert "12 entries" in ended.out
    assert invoke("audit", "verify", tmp_path / "log.jsonl").code == 0
    key = logged / ".metier/keys/ledger/public-key.pem"
    assert invoke("audit", "verify", tmp_path / "log.jsonl", "--public-key", key, "--json").document["pinned"] is True
    assert invoke("audit", "verify", tmp_path / "log.jsonl", "--key-id", "0" * 64).code == 1
    ended = invoke("audit", "proof", 11, tmp_path / "proof.json", logged)
    assert ended.code == 0
    assert invoke("audit", "verify", tmp_path / "proof.json", "--public-key", key).code == 0
    assert invoke("audit", "proof", 12, tmp_path / "none.json", logged).code == 2
    assert not (tmp_path / "none.json").exists()


def test_hostile_names_are_shown_escaped(logged: Path, tmp_path: Path, invoke: Invoke) -> None:
    shown = [invoke("audit", "proof", 11, tmp_path / "proof.json", logged, *more).out for more in ((), ("--json",))]
    for text in shown:
        assert text.isascii()
        assert "\x1b" not in text
        assert "\r" not in text
        assert "\\u202e" in text
    assert json.loads(shown[1])["facts"]["actor"] == HOSTILE


def test_no_log_is_wrong_input(tmp_path: Path, invoke: Invoke) -> None:
    folder = tmp_path / "empty"
    new_project(folder, name="hives", pack="example")
    for command in (["verify", folder], ["head", folder], ["export", tmp_path / "x", folder], ["proof", 0, tmp_path / "x", folder]):
        ended = invoke("audit", *command)
        assert ended.code == 2, command
        assert "there is no log yet" in ended.err
    assert not (folder / ".metier").exists()
    assert invoke("audit", "verify", tmp_path / "nothing").code == 2
