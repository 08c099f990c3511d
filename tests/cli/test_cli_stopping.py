"""Stopping a run in every way there is, and going on: nothing finished is lost, nothing half-done is believed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.conftest import COMMAND, ENVIRONMENT, Finished, Invoke, as_process, losses
from metier.store import Store

PATIENCE = 120


def stopped(folder: Path, number: signal.Signals, when: Callable[[], bool]) -> tuple[int, str]:
    """Start a run, send it a signal once `when` is true, and return its exit code and what it said."""
    process = subprocess.Popen([*COMMAND, "run", str(folder), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    until = time.monotonic() + PATIENCE
    while not when() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert out == ""
    return process.returncode, err


def test_sigterm_and_ctrl_c_end_with_3_and_the_same_command_goes_on(twin: Path, finished: Finished) -> None:
    store = twin / ".metier"
    code, said = stopped(twin, signal.SIGTERM, (store / "lock.json").exists)
    assert code == 3
    assert said.splitlines()[-1] == "stopped; everything finished is kept; run the same command to go on"
    code, said = stopped(twin, signal.SIGINT, lambda: any(path.stat().st_size for path in store.glob("work/*/metrics.jsonl")))
    assert code == 3
    assert "Traceback" not in said
    resumed = as_process("run", twin, "--json")
    assert resumed.code == 0
    assert "prepare: unchanged" in resumed.err
    assert resumed.document["dataset"] == finished.document["dataset"]
    assert losses(twin) == losses(finished.folder)


def test_kill_9_in_every_stage_changes_no_digest_of_the_data_and_no_loss(twin: Path, finished: Finished) -> None:
    script = Path(__file__).with_name("kill_everywhere.py")
    done = subprocess.run([sys.executable, str(script), str(twin)], capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)
    ends, document = (json.loads(line) for line in done.stdout.splitlines())
    assert ends == [signal.SIGKILL] * 8, done.stderr
    assert document["dataset"] == finished.document["dataset"]
    assert losses(twin) == losses(finished.folder)
    assert document["run"]["final_loss"] == finished.document["run"]["final_loss"]
    assert document["evaluation"]["tasks"] == finished.document["evaluation"]["tasks"]
    assert not any((twin / ".metier" / "work").iterdir())


@pytest.mark.parametrize(("number", "end", "step"), [(signal.SIGKILL, -signal.SIGKILL, 1), (signal.SIGINT, 3, 3)])
def test_kill_9_and_ctrl_c_after_the_decision_leave_all_or_nothing(
    finished: Finished, invoke: Invoke, tmp_path: Path, number: signal.Signals, end: int, step: int
) -> None:
    controls = invoke("comply", finished.folder, "--json").document["decision"]["controls"]
    flags = [name for name, entry in controls.items() if entry["blocks"] and name != "SX-01"]
    script = Path(__file__).with_name("kill_after_decision.py")
    command = [sys.executable, str(script), str(int(number)), str(step), str(finished.folder), str(tmp_path), *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    lives = [json.loads(line) for line in done.stdout.splitlines()]
    # Approving puts an event, the approval and the decision on record, releasing the decision, an event and the release: before and after each.
    assert [life[:3] for life in lives] == [[command, moment, end] for command in ("approve", "release") for moment in range(1, 7, step)]
    assert [life for life in lives if life[3]] == [], "the same command goes on"
    for command, moment, _, _ in lives:
        folder = tmp_path / f"{command}-{moment}"
        assert invoke("audit", "verify", folder).code == 0
        for kind, count in (("approval", 1), ("release", int(command == "release"))):
            found = list((folder / ".metier" / "artifacts" / kind).glob("*"))
            assert len(found) == count
            assert all(Store(folder / ".metier").damaged(Store(folder / ".metier").open(kind, path.name)) == [] for path in found)
        rows = invoke("releases", folder, "--json").document["releases"]
        assert [row["sound"] for row in rows] == [True] * (command == "release")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, *, leaving: int) -> Path:
    """Fill the disk up to some bytes and return the file that does."""
    filler = place / "filler"
    filler.write_bytes(b"\0" * (shutil.disk_usage(place).free - leaving))
    return filler


@pytest.mark.parametrize(("command", "leaving"), [(("data", "build"), 12_000), (("data", "build"), 120_000), (("train",), 12_000), (("train",), 120_000)])
def test_a_full_disk_ends_with_2_and_the_run_goes_on_once_there_is_room(
    small_disk: Path, finished: Finished, invoke: Invoke, command: tuple[str, ...], leaving: int
) -> None:
    folder = small_disk / "hives"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns(".metier"))
    shutil.copytree(finished.folder / ".metier" / "keys", folder / ".metier" / "keys")
    if command == ("train",):
        assert invoke("data", "build", folder).code == 0
    filler = fill(small_disk, leaving=leaving)
    full = invoke(*command, folder, "--json")
    assert full.code == 2, full.err
    # SQLite says "disk I/O error" where it finds no room for its own files; the log's message then asks for room.
    assert "is full" in full.err or "has room" in full.err
    assert "-> free some space and run the same command again" in full.err or "has room, then try again" in full.err
    assert full.out == ""
    filler.unlink()
    again = invoke(*command, folder, "--json")
    assert again.code == 0, again.err
    assert again.document["dataset"] == finished.document["dataset"]
    for kind in ("dataset", "run", "adapter"):
        for path in (folder / ".metier" / "artifacts" / kind).glob("*"):
            artifact = Store(folder / ".metier").open(kind, path.name)
            assert Store(folder / ".metier").damaged(artifact) == []


def test_a_bug_ends_with_70_and_asks_for_a_report(project: Path) -> None:
    code = "import metier.cli.main as m, metier.flow as f; f.run = lambda *a, **k: 1 / 0; m.main()"
    done = subprocess.run([sys.executable, "-c", code, "run", str(project)], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr
    assert "this is a bug of metier" in done.stderr.splitlines()[-1]
