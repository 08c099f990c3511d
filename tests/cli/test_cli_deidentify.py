"""Personal data in files: what the commands print, write, log and refuse. Seeded values must be nowhere but where they belong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from cli.conftest import COMMAND, ENVIRONMENT, Invoke
from metier import audit

SEEDED = ("张伟", "13812345678", "Jane Doe", "219-09-9999", "欧阳小红")
ROWS = [
    {"who": "a", "text": "姓名：张伟，电话13812345678。"},
    {"who": "b", "text": "Name: Jane Doe, SSN 219-09-9999."},
    {"who": "a", "text": "联系人：欧阳小红"},
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return path


def seeded(text: str) -> list[str]:
    return [value for value in SEEDED if value in text]


def held(folder: Path, *but: str) -> list[str]:
    """Return the seeded values in all files below a folder."""
    return [
        f"{value} in {path.name}"
        for path in folder.rglob("*")
        if path.is_file() and path.name not in but
        for value in SEEDED
        if value.encode() in path.read_bytes()
    ]


def test_a_file_is_de_identified_and_no_value_is_anywhere_else(source: Path, invoke: Invoke, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    ended = invoke("data", "deidentify", source, "--field", "text", "--out", out, "--policy", "pipl", "--key", tmp_path / "key", "--spans", "--json")
    assert ended.code == 0
    assert ended.document["replaced"] == {"PERSON": 3, "PHONE_NUMBER": 1, "US_SSN": 1}
    assert "PIPL 73" in ended.document["status"]
    assert seeded(ended.out + ended.err) == [] and held(tmp_path, "in.jsonl") == []
    again = tmp_path / "again.jsonl"
    invoke("data", "deidentify", source, "--field", "text", "--out", again, "--policy", "pipl", "--key", tmp_path / "key", "--spans", "--processes", "2")
    assert again.read_bytes() == out.read_bytes()


def test_rows_that_are_set_aside_end_with_1_and_show_nothing(source: Path, invoke: Invoke, tmp_path: Path) -> None:
    with source.open("a", encoding="utf-8") as stream:
        stream.write('{"text": "银行卡流水共计623456元"}\n{"text": "姓名：张伟\n')
    ended = invoke("data", "deidentify", source, "--field", "text", "--out", tmp_path / "out.jsonl")
    assert ended.code == 1
    assert "2 rows were set aside" in ended.err
    assert seeded(ended.out + ended.err) == [] and "623456" not in ended.out + ended.err
    assert held(tmp_path, "in.jsonl") == []


def test_a_preview_that_is_piped_shows_rules_and_no_value(source: Path, invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke("data", "deidentify", source, "--field", "text", "--preview", "--policy", "hipaa")
    assert ended.code == 0
    assert seeded(ended.out + ended.err) == []
    assert "PERSON 1 by pattern; surrogate: 45 CFR 164.514(b)(2)(i)(A)" in ended.out
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_policies_are_listed_and_compared(source: Path, invoke: Invoke) -> None:
    assert "safe-harbor, hipaa" in invoke("data", "policies").out
    ended = invoke("data", "policies", "--diff", "hipaa", "strict", source, "--field", "text", "--json")
    assert ended.document["entities"]["PERSON"][1]["actions"] == {"mask": 3}
    shown = invoke("data", "policies", "--diff", "hipaa", "strict", source, "--field", "text")
    assert seeded(shown.out + ended.out) == []


def test_wrong_options_say_what_to_do(source: Path, invoke: Invoke, tmp_path: Path) -> None:
    for arguments, said in (
        ((source, "--out", tmp_path / "o.jsonl"), "--field"),
        ((source, "--field", "text"), "--out is missing"),
        ((source, "--field", "text", "--out", tmp_path / "o.jsonl", "--policy", "hippa"), "did you mean 'hipaa'"),
        ((source, "--field", "text", "--out", tmp_path / "o.jsonl", "--vault", tmp_path / "v"), "needs a key file"),
        ((source, "--field", "text", "--out", tmp_path / "o.jsonl", "--pack", "medicl"), "medical"),
    ):
        ended = invoke("data", "deidentify", *arguments)
        assert ended.code == 2 and said in ended.err and "Traceback" not in ended.err


def test_the_guard_names_places_and_kinds(source: Path, invoke: Invoke, tmp_path: Path) -> None:
    ended = invoke("data", "guard", source)
    assert ended.code == 1
    assert f"{source}:2: US_SSN" in ended.out.splitlines()
    assert seeded(ended.out + ended.err) == []
    (tmp_path / "allow").write_text("in.jsonl\n", encoding="utf-8")
    assert invoke("data", "guard", source, "--allow", tmp_path / "allow").code == 0


def test_a_vault_gives_back_what_it_keeps_logs_who_asked_and_forgets(source: Path, invoke: Invoke, tmp_path: Path) -> None:
    out, vault, key = tmp_path / "out.jsonl", tmp_path / "vault", tmp_path / "key"
    assert invoke("data", "deidentify", source, "--field", "text", "--subject", "who", "--out", out, "--vault", vault, "--key", key).code == 0
    assert held(tmp_path, "in.jsonl") == []
    who = ("--key", key, "--name", "Li Na", "--purpose", "a test of the way back")
    assert invoke("vault", "reveal", vault, "--file", out, "--out", tmp_path / "back.jsonl", *who).code == 0
    assert [json.loads(line)["text"] for line in (tmp_path / "back.jsonl").read_text(encoding="utf-8").splitlines()] == [row["text"] for row in ROWS]
    assert invoke("vault", "rotate", vault, "--key", key, "--name", "Li Na").code == 0
    ended = invoke("vault", "erase", vault, "--subject", "a", *who, "--search", out, "--json")
    assert (ended.code, ended.document["originals"], ended.document["still_in"]) == (0, 3, [])
    assert invoke("vault", "erase", vault, "--subject", "b", *who, "--search", source).code == 1
    assert invoke("vault", "status", vault, "--key", key, "--json").document["originals"] == 0
    with audit.open_project_ledger(vault, audit.AuditSettings()) as ledger:
        actions = [entry.facts["action"] for entry in ledger.find()]
    assert actions == ["vault reveal", "vault rotate", "vault erase", "vault erase verified", "vault erase", "vault erase verified"]
    (tmp_path / "other").write_bytes(os.urandom(32))
    wrong = invoke("vault", "status", vault, "--key", tmp_path / "other")
    assert wrong.code == 2 and "another key" in wrong.err


def test_a_killed_run_goes_on(source: Path, tmp_path: Path) -> None:
    rows = source.read_text(encoding="utf-8") * 4000
    source.write_text(rows, encoding="utf-8")
    out, work = tmp_path / "out.jsonl", tmp_path / ".out.jsonl.work"
    command = [*COMMAND, "data", "deidentify", str(source), "--field", "text", "--out", str(out)]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(work.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists() and held(work) == []
    assert subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=False).returncode == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 12_000 and len(set(lines)) == 3


def test_the_gateway_is_not_opened_to_others_without_a_token(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METIER_GATEWAY_TOKEN", raising=False)
    ended = invoke("gateway", "--upstream", "http://127.0.0.1:9/v1", "--host", "0.0.0.0")
    assert ended.code == 2 and "METIER_GATEWAY_TOKEN" in ended.err
    assert invoke("gateway", "--upstream", "https://name:key@example.com").code == 2


UPSTREAM = """
import json, uvicorn
async def app(scope, receive, send):
    body = json.loads((await receive())["body"])
    print(json.dumps(body), flush=True)
    said = body["messages"][-1]["content"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for char in said:
        event = {"choices": [{"index": 0, "delta": {"content": char}, "finish_reason": None}]}
        await send({"type": "http.response.body", "body": b"data: " + json.dumps(event).encode() + b"\\n\\n", "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\\n\\n"})
uvicorn.run(app, port=PORT, log_level="error")
"""


def test_the_gateway_serves_a_stream_between_real_processes(tmp_path: Path, free_ports: tuple[int, int]) -> None:
    inside, outside = free_ports
    environment = {**ENVIRONMENT, "METIER_GATEWAY_UPSTREAM_KEY": "upstream-secret"}
    with (tmp_path / "seen").open("w") as seen, (tmp_path / "log").open("w") as log:
        running = [
            subprocess.Popen([sys.executable, "-c", UPSTREAM.replace("PORT", str(outside))], stdout=seen, stderr=log),
            subprocess.Popen(
                [*COMMAND, "gateway", "--upstream", f"http://127.0.0.1:{outside}/v1", "--port", str(inside)], env=environment, stdout=log, stderr=log
            ),
        ]
        try:
            question = {"model": "m", "stream": True, "messages": [{"role": "user", "content": ROWS[0]["text"]}]}
            answer = _asked(f"http://127.0.0.1:{inside}/v1/chat/completions", question)
        finally:
            for process in running:
                process.terminate()
                process.wait()
    events = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"]["content"] for event in events) == ROWS[0]["text"]
    assert held(tmp_path) == [] and "upstream-secret" not in (tmp_path / "log").read_text()
    assert "PERSON_" in (tmp_path / "seen").read_text()


def _asked(url: str, question: dict[str, object]) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = httpx.post(url, json=question, timeout=30)
            if answer.status_code == 200:
                return answer.text
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.fixture
def free_ports() -> tuple[int, int]:
    import socket

    found = []
    with socket.socket() as one, socket.socket() as other:
        for item in (one, other):
            item.bind(("127.0.0.1", 0))
            found.append(item.getsockname()[1])
    return found[0], found[1]
