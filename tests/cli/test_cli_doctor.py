"""`metier doctor` says what is there, what is missing, and whether the main path can run."""

from __future__ import annotations

import subprocess
import sys

import metier
from cli.conftest import Invoke


def test_doctor_reports_machine_packages_packs_and_models(invoke: Invoke) -> None:
    ended = invoke("doctor", "--json")
    found = {item["name"]: item for item in ended.document["findings"]}
    assert ended.document["ok"] == (ended.code == 0) == all(item["state"] != "bad" for item in found.values())
    assert found["metier"]["value"] == metier.__version__
    assert found["python"]["value"] == ".".join(map(str, sys.version_info[:3]))
    assert {"platform", "cores", "memory", "disk, here", "disk, cache", "torch", "cache", "base bundled/gemma-3-270m"} <= set(found)
    for name in ("matmul float32", "matmul bfloat16"):
        assert float(found[name]["value"].removesuffix(" GFLOP/s")) > 0
    assert found["pack example"] == {"name": "pack example", "value": "0.1.0, zh, en", "state": "good", "remedy": ""}
    assert "transformers" in found["extra train"]["value"]


def test_doctor_ends_with_2_and_a_remedy_where_torch_is_missing() -> None:
    program = """
import importlib.metadata as metadata, sys
known = metadata.version
def version(name):
    if name == "torch":
        raise metadata.PackageNotFoundError(name)
    return known(name)
metadata.version = version
sys.modules["torch"] = None
from metier.cli.main import main
main(["doctor"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "bad  extra train" in done.stdout
    assert "missing: torch" in done.stdout
    assert "-> pip install 'metier[train]'" in done.stdout
    assert "matmul" not in done.stdout
