"""Settings: where a project's log lies."""

from __future__ import annotations

from pathlib import Path

from metier.audit import AuditSettings, open_project_ledger, project_places
from metier.events import Event, now


def test_everything_lies_in_the_project_unless_said_otherwise(tmp_path: Path) -> None:
    found = project_places(tmp_path, AuditSettings())
    assert (found.database, found.heads, found.keys) == (
        tmp_path / ".metier/ledger.sqlite",
        tmp_path / ".metier/ledger.heads.jsonl",
        tmp_path / ".metier/keys",
    )
    assert not found.exist


def test_every_setting_is_followed(tmp_path: Path) -> None:
    settings = AuditSettings(url="sqlite:///log/a.sqlite", heads="elsewhere/heads.jsonl", keys="secrets", head_every=2)
    with open_project_ledger(tmp_path, settings) as ledger:
        for _ in range(5):
            ledger.record(Event("access", "keeper", now()))
        assert ledger.verify().facts["heads"] == 4
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file() and "-" not in path.suffix} == {
        "log/a.sqlite",
        "elsewhere/heads.jsonl",
        "secrets/ledger/signing-key.pem",
        "secrets/ledger/body-key",
        "secrets/ledger/public-key.pem",
    }
    assert project_places(tmp_path, AuditSettings(url="postgresql://host/name")).on_a_server
