"""`metier train` by several processes: the losses of one, by torchrun and by Ray; a process that is killed; another number of processes after it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli.hives import rows, write_jsonl, write_project
from metier.models import Base

TRAINING = "  batch: {row_tokens: 128, rows: 4, maximum_tokens: 128}\n  validation: {times: 3}\n  checkpoint: {steps: 1}\n"


def project(folder: Path, base: Base) -> Path:
    write_project(folder, base.folder, count=80)
    file = folder / "metier.yaml"
    text = file.read_text(encoding="utf-8").replace("  batch: {row_tokens: 2048}\n", TRAINING)
    file.write_text(text.replace("{rank: 4}", "{rank: 4, dropout: 0.1}").replace("epochs: 1", "epochs: 2"), encoding="utf-8")
    return folder


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def started(folder: Path, count: int) -> list[subprocess.Popen[str]]:
    """Start `count` processes as a launcher does."""
    port, found = free_port(), []
    for rank in range(count):
        joined = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)} if count > 1 else {}
        joined |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "metier", "train", str(folder), "--json"]
        found.append(subprocess.Popen(command, env=os.environ | joined, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return found


def trained(folder: Path, count: int) -> dict[str, Any]:
    ended = [(process.communicate(timeout=300), process.returncode) for process in started(folder, count)]
    assert [code for _, code in ended] == [0] * count, ended
    assert all(out == "" for (out, _), _ in ended[1:]), "only the first says something"
    return dict(json.loads(ended[0][0][0]))


def metrics(folder: Path, document: dict[str, Any]) -> list[dict[str, Any]]:
    file = folder / ".metier" / "artifacts" / "run" / document["run"]["digest"] / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Path:
    """A project with its dataset: copies of it are the same to the byte, whatever keys it drew."""
    folder = project(tmp_path_factory.mktemp("built"), base)
    subprocess.run([sys.executable, "-m", "metier", "data", "build", str(folder)], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, built: Path) -> list[dict[str, Any]]:
    folder = Path(shutil.copytree(built, tmp_path_factory.mktemp("alone") / "project"))
    return metrics(folder, trained(folder, 1))


def test_torchrun_gives_the_losses_of_one_process(tmp_path: Path, built: Path, alone: list[dict[str, Any]]) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "project"))
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        free_port(),
        "-m",
        "metier",
        "train",
        str(folder),
        "--json",
    ]
    ended = subprocess.run(launcher, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    both = metrics(folder, document)
    assert [row["loss"] for row in both] == pytest.approx([row["loss"] for row in alone], abs=1e-5)
    assert [row.get("validation_loss") for row in both] == pytest.approx([row.get("validation_loss") for row in alone], abs=1e-5)
    again = subprocess.run(launcher, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, "the others are let go where there is nothing to train"
    assert "unchanged" in again.stderr
    assert json.loads(again.stdout)["run"] == document["run"]


def engine(folder: Path, said: str) -> None:
    """Say in the project file how work is executed."""
    file = folder / "metier.yaml"
    text = "".join(line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if not line.startswith("engine:"))
    file.write_text(f"{text}engine: {said}\n", encoding="utf-8")


def until_two_steps(folder: Path, leader: subprocess.Popen[str]) -> None:
    begun = time.monotonic()
    while not [path for path in folder.glob(".metier/work/*/metrics.jsonl") if path.read_bytes().count(b"\n") >= 2]:
        assert time.monotonic() - begun < 200, "training did not begin"
        assert leader.poll() is None, leader.communicate()
        time.sleep(0.01)


def same(rows: list[dict[str, Any]], alone: list[dict[str, Any]]) -> None:
    for key in ("loss", "validation_loss"):
        assert [row.get(key) for row in rows] == pytest.approx([row.get(key) for row in alone], abs=1e-5)
    assert [row["step"] for row in rows] == [row["step"] for row in alone]


@pytest.mark.parametrize(("distribution", "victim"), [("replicated", 1), ("sharded", 0)])
def test_a_killed_process_stops_all_and_any_number_goes_on(tmp_path: Path, built: Path, alone: list[dict[str, Any]], distribution: str, victim: int) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "project"))
    engine(folder, f"{{distribution: {distribution}}}")
    both = started(folder, 2)
    until_two_steps(folder, both[0])
    both[victim].send_signal(signal.SIGKILL)
    other = both[1 - victim]
    _, said = other.communicate(timeout=120)
    both[victim].communicate(timeout=20)
    assert other.returncode == 2, said
    assert "another process of this training has ended" in said
    assert "Traceback" not in said
    same(metrics(folder, trained(folder, 1)), alone)


def workers_of(process: int) -> list[int]:
    """Return the processes that train below another one, in the order in which they were started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    below = {process}
    for _ in range(8):
        below |= {child for child, parent in parents.items() if parent in below}
    found = []
    for child in sorted(below):
        with contextlib.suppress(OSError):
            found += [child] if b"_Member" in Path(f"/proc/{child}/cmdline").read_bytes() else []
    return found


def test_workers_of_ray_give_the_losses_of_one_process_though_one_is_lost(tmp_path: Path, built: Path, alone: list[dict[str, Any]]) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    folder = Path(shutil.copytree(built, tmp_path / "project"))
    engine(folder, "{kind: ray, training_workers: 2, distribution: sharded}")
    (leader,) = started(folder, 1)
    until_two_steps(folder, leader)
    workers = workers_of(leader.pid)
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    _, said = leader.communicate(timeout=120)
    assert leader.returncode == 2, said
    assert "of 2 was lost" in said
    assert "any number of workers" in said
    assert "Traceback" not in said
    engine(folder, "{kind: ray, training_workers: 3}")
    document = trained(folder, 1)
    same(metrics(folder, document), alone)
    manifest = folder / ".metier" / "artifacts" / "run" / document["run"]["digest"] / "manifest.json"
    assert json.loads(manifest.read_bytes())["facts"]["environment"]["processes"] == 3


@pytest.mark.parametrize(
    ("said", "more", "key"),
    [
        ("{distribution: sharded}", "  method: adalora\n", "training.method: adalora"),
        ("{training_workers: 2}", "", "training_workers is of use to the engine ray only"),
        ("{distribution: shared}", "", "'replicated' or 'sharded'"),
        ("{distributed: sharded}", "", "unknown key"),
    ],
)
def test_what_an_engine_cannot_do_is_refused_before_anything_is_loaded(tmp_path: Path, built: Path, said: str, more: str, key: str) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "project"))
    file = folder / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("training:\n", f"training:\n{more}"), encoding="utf-8")
    engine(folder, said)
    ended = subprocess.run([sys.executable, "-m", "metier", "train", str(folder)], capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 2
    assert key in " ".join(ended.stderr.split())


def test_a_launcher_and_workers_of_ray_exclude_each_other(tmp_path: Path, built: Path) -> None:
    folder = Path(shutil.copytree(built, tmp_path / "project"))
    engine(folder, "{kind: ray, training_workers: 2}")
    ended = [(process.communicate(timeout=100), process.returncode) for process in started(folder, 2)]
    assert [code for _, code in ended] == [2, 0]
    assert "a launcher has started several processes" in ended[0][0][1]


def test_two_processes_that_train_two_projects_together_have_the_losses_of_one(tmp_path: Path, base: Base) -> None:
    for number, name in enumerate(("one", "other")):
        folder = project(tmp_path / "built" / name, base)
        write_jsonl(folder / "data" / "hives.jsonl", rows(60, seed=number))
        joint = "{rank: 4, joint: {projects: [../other], rank: 2, alpha: 0.5}, dropout" if name == "one" else "{rank: 4, dropout"
        text = (folder / "metier.yaml").read_text(encoding="utf-8").replace("project: hives", f"project: {name}")
        (folder / "metier.yaml").write_text(text.replace("{rank: 4, dropout", joint), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "metier", "data", "build", str(folder)], check=True, capture_output=True)
    found = []
    for count in (1, 2):
        folder = Path(shutil.copytree(tmp_path / "built", tmp_path / str(count))) / "one"
        found.append(metrics(folder, trained(folder, count)))
    alone, both = found
    assert [row["loss"] for row in both] == pytest.approx([row["loss"] for row in alone], abs=1e-4)
    checked = [[loss for row in measured for loss in row.get("validation_by_member", ())] for measured in found]
    assert len(checked[0]) == 6
    assert checked[1] == pytest.approx(checked[0], abs=1e-4)
