"""`metier serve` over the real registry and the real log: what was tampered with since the last start is not served."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cli.conftest import COMMAND, ENVIRONMENT, Ended, Finished, Invoke
from metier.cli.serve import connect
from metier.errors import GateRefused, MetierError
from metier.project import load_project

PATIENCE = 120


@pytest.fixture(scope="module")
def released(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished project, approved by somebody else and released as `first` and `second`. Tests must not change it."""
    folder = tmp_path_factory.mktemp("released") / "hives"
    shutil.copytree(finished.folder, folder)
    controls = _run("comply", folder, "--json").document["decision"]["controls"]
    flags = [word for name, entry in controls.items() if entry["blocks"] and name != "SX-01" for word in ("--control", name)]
    for arguments in (["approve", folder, "--by", "Zhang Wei", *flags], ["release", folder, "--name", "first"], ["release", folder, "--name", "second"]):
        ended = _run(*arguments)
        assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def spare(released: Path, tmp_path: Path) -> Path:
    """A copy of the released project that a test may change."""
    return Path(shutil.copytree(released, tmp_path / "spare"))


def _run(*arguments: object) -> Ended:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, check=False, env=ENVIRONMENT)
    return Ended(done.returncode, done.stdout, done.stderr)


@contextlib.contextmanager
def serving(folder: Path, key: str) -> Iterator[httpx.Client]:
    """Run `metier serve` as a process until the end of the block, which it has to survive."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*COMMAND, "serve", str(folder), "--port", str(port)]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {key}"}, timeout=60) as client,
    ):
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("serving "):
                    break
            else:
                pytest.fail("it did not start")
            while True:
                with contextlib.suppress(httpx.ConnectError):
                    if client.get("/ready").status_code == 200:
                        break
            yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
    assert process.returncode == 0


def weights(folder: Path, name: str) -> Path:
    """Return the weights of a release by its name."""
    (found,) = [path for path in (folder / ".metier" / "artifacts" / "release").glob("*/release.json") if f'"name":"{name}"' in path.read_text()]
    return found.with_name("adapter_model.safetensors")


def flip(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_release_tampered_with_between_two_starts_is_not_served(spare: Path) -> None:
    key = _run("keys", "new", spare, "--name", "tester").out.strip()
    question = {"model": "first", "messages": [{"role": "user", "content": "How many frames? 春天的蜂箱有几张子脾？"}], "max_tokens": 8}
    with serving(spare, key) as client:
        assert sorted(item["id"] for item in client.get("/v1/models").json()["data"]) == ["first", "second"]
        answered = client.post("/v1/chat/completions", json=question)
        assert answered.status_code == 200
        entry = answered.json()["metier"]["entry"]
    flip(weights(spare, "first"))
    with serving(spare, key) as client:
        assert [item["id"] for item in client.get("/v1/models").json()["data"]] == ["second"]
        refused = client.post("/v1/chat/completions", json=question)
        assert refused.status_code == 404, "neither the base nor the other release answers in its place"
        assert client.post("/v1/chat/completions", json=question | {"model": "second"}).json()["metier"]["entry"] == entry + 1
    flip(weights(spare, "second"))
    ended = _run("serve", spare)
    assert ended.code != 0
    assert "'adapter_model.safetensors' was changed after it was signed" in ended.err
    assert "has no release that may be served" in ended.err
    assert "Traceback" not in ended.err


def test_what_connects_server_registry_and_log_gives_sound_releases_and_a_record(spare: Path) -> None:
    with connect(load_project(spare)) as (found, record):
        assert [item.name for item in found] == ["first", "second"]
        assert all((item.adapter / name).is_file() for item in found for name in item.files)
        assert callable(record)
    flip(weights(spare, "second"))
    with connect(load_project(spare)) as (found, _):
        assert [item.name for item in found] == ["first"]


def _weights_of_another(folder: Path) -> None:
    shutil.copyfile(weights(folder, "first"), weights(folder, "second").with_name("extra.safetensors"))
    flip(weights(folder, "first"))


def _signed_by_another_key(folder: Path) -> None:
    shutil.rmtree(folder / ".metier" / "keys" / "ledger")


def _a_changed_log(folder: Path) -> None:
    (database,) = (folder / ".metier").rglob("ledger.sqlite")
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE ledger_entries SET envelope = replace(envelope, 'artifact', 'artefact') WHERE number = 0")


@pytest.mark.parametrize(
    ("tamper", "error", "said"),
    [
        (_weights_of_another, MetierError, "no release that may be served"),
        (_signed_by_another_key, MetierError, "keys are gone"),
        (_a_changed_log, GateRefused, "the log of events does not verify"),
    ],
)
def test_nothing_is_served_over_a_spoilt_registry_key_or_log(spare: Path, tamper: Callable[[Path], None], error: type[Exception], said: str) -> None:
    tamper(spare)
    with pytest.raises(error, match=said), connect(load_project(spare)):
        pytest.fail("it was opened")


def test_serving_before_anything_was_released_says_what_to_do(finished: Finished, invoke: Invoke) -> None:
    ended = invoke("serve", finished.folder)
    assert ended.code == 2
    assert "-> make one with: metier release" in ended.err
