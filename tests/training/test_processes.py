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


def train(folder: Path, processes: int, how: str = "replicated") -> list[dict[str, Any]]:
    """Train in that many processes on this machine, joined by gloo, and return what each of them wrote."""
    port, out = str(free_port()), folder / f"{how}-of-{processes}"
    started = []
    for rank in range(processes):
        joined = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | ({**joined, "ACCELERATE_USE_CPU": "true"} if processes > 1 else {})
        started.append(subprocess.Popen([sys.executable, str(SCRIPT), str(folder / f"base-{rank}"), str(out), how], env=environment))
    assert [process.wait(timeout=300) for process in started] == [0] * processes
    return [json.loads(out.with_suffix(f".{rank}.json").read_text()) for rank in range(processes)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (found,) = train(tmp_path_factory.mktemp("alone"), 1)
    assert found["processes"] == 1
    assert set(found["cases"]) >= set(METHODS) - {"qlora"}
    return dict(found["cases"])


@pytest.mark.parametrize("how", ["replicated", "sharded"])
def test_two_processes_have_the_losses_of_one_whatever_the_method_and_the_objective(tmp_path: Path, alone: dict[str, Any], how: str) -> None:
    first, second = train(tmp_path, 2, how)
    assert first["processes"] == 2
    assert set(first["cases"]) == {name for name in alone if how == "replicated" or METHODS[name.split()[0]].shards}
    for name, both in first["cases"].items():
        single = alone[name]
        assert both["losses"] == second["cases"][name]["losses"], name
        assert both["losses"] == pytest.approx(single["losses"], abs=1e-5), name
        assert both["norms"] == pytest.approx(single["norms"], rel=1e-4), name
        assert both["validation"] == pytest.approx(single["validation"], abs=1e-5), name
        assert both["weight"] == pytest.approx(single["weight"], rel=1e-4), name
        assert both["state"] == pytest.approx(single["state"], rel=1e-3), name
        assert len(set(single["losses"])) > 1, name
