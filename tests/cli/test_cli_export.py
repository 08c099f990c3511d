"""`metier export`: what it prints, its exit codes, and the event in the project's log."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli.conftest import Finished, Invoke


@pytest.fixture
def spare(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished project that a test may change."""
    return Path(shutil.copytree(finished.folder, tmp_path / "spare"))


def test_an_export_prints_figures_and_stands_in_the_log(spare: Path, invoke: Invoke, tmp_path: Path) -> None:
    refused = invoke("export", spare, "--format", "merged", "--out", tmp_path / "out")
    assert refused.code == 1
    assert "not exported: the verdict is awaiting" in refused.err
    assert "Traceback" not in refused.err
    size = json.loads(invoke("run", spare, "--json").out.splitlines()[-1])["ledger"]["size"]
    done = invoke("export", spare, "--format", "merged", "--out", tmp_path / "out", "--unreleased", "--json")
    assert done.code == 0, done.err
    document = done.document["export"]
    assert document["path"] == str(tmp_path / "out")
    assert document["released"] is False
    assert invoke("audit", "verify", spare).code == 0
    assert invoke("run", spare, "--json").document["ledger"]["size"] == size + 1
    lines = tmp_path / "log.jsonl"
    assert invoke("audit", "export", lines, spare).code == 0
    assert document["digest"] in lines.read_text(encoding="utf-8")
    shown = invoke("export", spare, "--format", "vllm", "--out", tmp_path / "adapter", "--unreleased")
    assert shown.code == 0
    assert "nobody has released this expert" in shown.err
    assert "vllm of adapter" in shown.out


def test_a_dry_run_checks_and_writes_nothing(spare: Path, invoke: Invoke, tmp_path: Path) -> None:
    before = sorted(path.as_posix() for path in tmp_path.rglob("*"))
    done = invoke("export", spare, "--format", "gguf", "--out", tmp_path / "out", "--unreleased", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert done.document["would"]["format"] == "gguf"
    wrong = invoke("export", spare, "--format", "gguf", "--out", tmp_path / "out", "--unreleased", "--type", "q5", "--dry-run")
    assert wrong.code == 2
    assert sorted(path.as_posix() for path in tmp_path.rglob("*")) == before
    for asked, said in (("ollama", "valid: llama.cpp"), ("llama.cpp", "--check llama.cpp runs a GGUF file")):
        odd = invoke("export", spare, "--format", "merged", "--out", tmp_path / "out", "--unreleased", "--check", asked, "--dry-run")
        assert (odd.code, said in odd.err) == (2, True)
