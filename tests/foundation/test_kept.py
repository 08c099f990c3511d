"""What is kept for whoever comes next: the newest few stay, what somebody holds stays, and what is held is used by one at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metier.kept import KEPT, by_age, holding

HOLD = """
import sys, time
from pathlib import Path
from metier.kept import holding
with holding(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def _old(path: Path, age: int, *, folder: bool) -> Path:
    if folder:
        (path / "inside").mkdir(parents=True)
        (path / "inside" / "file").write_text("x")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


@pytest.mark.parametrize("folder", [True, False])
def test_the_newest_stay_and_older_ones_go_with_their_locks(tmp_path: Path, folder: bool) -> None:
    made = [_old(tmp_path / "kept" / f"{number:02d}", number, folder=folder) for number in range(20)]
    for path in made:
        path.with_suffix(".lock").touch()
    with holding(made[19]):
        left = [path for path in by_age(tmp_path / "kept") if path.suffix != ".lock"]
        assert sorted(left) == sorted([*made[: KEPT - 1], made[19]]), "the one that is used counts as the newest"
    assert sorted(path.stem for path in (tmp_path / "kept").glob("*.lock")) == sorted(path.name for path in left)


def test_what_another_process_uses_is_not_cleared_however_old_it_is(tmp_path: Path) -> None:
    made = [_old(tmp_path / f"{number:02d}", number, folder=True) for number in range(12)]
    with subprocess.Popen([sys.executable, "-c", HOLD, str(made[11])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        os.utime(made[11], (1, 1))
        with holding(tmp_path / "new"):
            assert made[11].exists()
            assert not made[10].exists()
        other.stdin.write("\n")
    with holding(tmp_path / "new"):
        assert not made[11].exists(), "nobody uses it any more"


def test_an_entry_of_its_own_is_there_for_whoever_waits(tmp_path: Path) -> None:
    entry = tmp_path / "kept" / "entry"
    with holding(entry):
        entry.mkdir()
    with holding(entry):
        assert entry.is_dir()
