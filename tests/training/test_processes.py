from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from metier.models.methods import METHODS

SCRIPT = Path(__file__).with_name("two_processes.py")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def train(folder: Path, processes: int) -> list[dict[str, Any]]:
    """Train in that many processes on this machine, joined by gloo, and return what each of them wrote."""
    port, out = str(free_port()), folder / f"of-{processes}"
    started = []
    for rank in range(processes):
        joined = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | ({**joined, "ACCELERATE_USE_CPU": "true"} if processes > 1 else {})
        started.append(subprocess.Popen([sys.executable, str(SCRIPT), str(folder / f"base-{rank}"), str(out)], env=environment))
    assert [process.wait(timeout=300) for process in started] == [0] * processes
    return [json.loads(out.with_suffix(f".{rank}.json").read_text()) for rank in range(processes)]


def test_two_processes_have_the_losses_of_one_whatever_the_method(tmp_path: Path) -> None:
    (alone,) = train(tmp_path, 1)
    first, second = train(tmp_path, 2)
    assert (alone["processes"], first["processes"]) == (1, 2)
    assert set(alone["methods"]) >= set(METHODS) - {"qlora"}
    for method, single in alone["methods"].items():
        both = first["methods"][method]
        assert both == second["methods"][method], method
        assert both["losses"] == pytest.approx(single["losses"], abs=1e-5), method
        assert both["weight"] == pytest.approx(single["weight"], rel=1e-4), method
        assert len(set(single["losses"])) > 1, method
