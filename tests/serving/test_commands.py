from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest

from metier.cli import serve as command
from metier.cli.main import main
from metier.models import Base
from metier.serving import ApiKeys, Served
from serving.conftest import FileRecorder, question

PROJECT = """metier: 1
project: advisor
pack: medical
base: {base}
sources:
  - {{path: data/*.jsonl, licence: internal}}
serving: {{rows: 2, context: 256, max_new_tokens: 32, grace: 2.0}}
"""


@pytest.fixture
def project(base: Base, tmp_path: Path) -> Path:
    (tmp_path / "metier.yaml").write_text(PROJECT.format(base=base.folder), encoding="utf-8")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(item) for item in arguments])
    out, err = capsys.readouterr()
    return int(ended.value.code or 0), out, err


def test_a_key_is_printed_once_listed_and_revoked(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, secret, err = call(capsys, "keys", "new", project, "--name", "front-desk", "--expires", "90d")
    assert (code, "only time" in err) == (0, True)
    assert re.fullmatch(r"mtr_[\w-]{43}\n", secret)
    assert call(capsys, "keys", "new", project, "--name", "scraper", "--scope", "metrics")[0] == 0
    _, listed, _ = call(capsys, "keys", "list", project)
    assert "front-desk" in listed
    assert "mtr_" not in listed
    rows = json.loads(call(capsys, "keys", "list", project, "--json")[1])
    assert [(row["name"], row["scopes"]) for row in rows] == [("front-desk", ["chat"]), ("scraper", ["metrics"])]
    assert "digest" not in rows[0]
    keys = ApiKeys(project / ".metier" / "keys")
    assert keys.find(secret.strip())
    assert call(capsys, "keys", "revoke", project, "--name", "front-desk")[0] == 0
    assert keys.find(secret.strip()) is None


def test_wrong_input_ends_with_2_and_says_what_to_do(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "keys", "new", project, "--name", "a b", "--scope", "chats")
    assert code == 2
    assert "did you mean 'chat'" in err
    assert "cannot be the name" in err
    assert call(capsys, "keys", "revoke", project, "--name", "nobody")[0] == 2


def test_serving_only_knows_releases(project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, releases: list[Served]) -> None:
    monkeypatch.setattr(command, "connect", lambda project: nullcontext((releases, FileRecorder(project.root / "log"))))
    code, _, err = call(capsys, "serve", project, "--release", "alfa", "--release", "betta")
    assert code == 2
    assert "did you mean 'alpha'" in err
    assert "did you mean 'beta'" in err


def test_a_served_project_answers_and_ends_cleanly(project: Path, releases: list[Served]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = ApiKeys(project / ".metier" / "keys").new("tester")
    script = Path(__file__).parent / "served_project.py"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(releases[0].adapter), "serve", str(project), "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}, timeout=30)
        for _ in range(2400):
            try:
                if client.get("/ready").status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.05)
        assert client.post("/v1/chat/completions", json=question()).status_code == 200
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        err = process.stderr.read()
        assert process.wait(20) == 0, err
    assert "serving alpha at http://127.0.0.1:" in err
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert any("POST /v1/chat/completions 200" in line["message"] for line in lines)
    assert key not in err
    assert "hello" not in err
    assert len((project / "log.jsonl").read_text().splitlines()) == 1
