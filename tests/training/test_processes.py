from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def train(folder: Path, processes: int) -> list[dict[str, object]]:
    """Train in that many processes on this machine, joined by gloo, and return what each of them wrote."""
    port, out = str(free_port()), folder / f"of-{processes}"
    started = []
    for rank in range(processes):
        joined = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | ({**joined, "ACCELERATE_USE_CPU": "true"} if processes > 1 else {})
        started.append(subprocess.Popen([sys.executable, str(SCRIPT), str(folder / f"base-{rank}"), str(out)], env=environment))
    assert [process.wait(timeout=120) for process in started] == [0] * processes
    return [json.loads(out.with_suffix(f".{rank}.json").read_text()) for rank in range(processes)]


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    (alone,) = train(tmp_path, 1)
    first, second = train(tmp_path, 2)
    assert (alone["processes"], first["processes"]) == (1, 2)
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(alone["losses"], abs=1e-5)
    assert first["weight"] == pytest.approx(alone["weight"], rel=1e-4)
    assert alone["losses"][-1] < alone["losses"][0]
