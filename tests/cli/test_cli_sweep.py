"""`metier sweep`: what it prints, what it refuses, and that a kill in the middle changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.conftest import COMMAND, ENVIRONMENT, Invoke, as_process
from cli.hives import write_project
from metier.models import Base

SWEEP = """
  validation: {times: 3, limit: 12}
  checkpoint: {steps: 1}
sweep:
  trials: 3
  warmup: 1
  search:
    learning_rate: {low: 1e-5, high: 2e-2, log: true}
    adaptation.rank: [1, 4]
"""


@pytest.fixture
def searched(base: Base, tmp_path: Path) -> Path:
    folder = write_project(tmp_path / "hives", base.folder, count=60, training=SWEEP)
    file = folder / "metier.yaml"
    # What is searched is not set as well, and a trial lasts long enough to be met on its way.
    text = file.read_text(encoding="utf-8").replace("  adaptation: {rank: 4}\n", "").replace("epochs: 1\n", "epochs: 4\n")
    file.write_text(text, encoding="utf-8")
    return folder


def told(document: dict[str, Any]) -> dict[str, Any]:
    """What a sweep found, without where it lies and what a clock says."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in document["trials"]]
    return {key: document[key] for key in ("dataset", "curve", "yaml", "sentences", "importance")} | {"trials": rows}


def _until(words: bytes, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 240
    while words not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


def _begin(project: Path, log: Path, *options: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return subprocess.Popen([*COMMAND, "sweep", str(project), *options], stderr=stream, stdout=subprocess.DEVNULL, env=ENVIRONMENT, start_new_session=True)


def _of_group(group: int) -> dict[int, str]:
    """Return the commands of the processes of a group that still live, by process id."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=3) for line in listed.splitlines()]
    return {int(row[0]): row[3] for row in rows if row[1] == str(group) and not row[2].startswith("Z")}


def test_a_sweep_that_is_killed_goes_on_where_it_was_and_finds_the_same(searched: Path, tmp_path: Path, invoke: Invoke) -> None:
    assert invoke("data", "build", searched).code == 0
    twin = tmp_path / "twin"
    shutil.copytree(searched, twin)
    whole = as_process("sweep", twin, "--json")
    assert whole.code == 0, whole.err

    process = _begin(searched, tmp_path / "log")
    _until(b"trial 1: validation", tmp_path / "log", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (journal,) = (searched / ".metier" / "sweep").glob("*/journal.log")
    known = journal.read_bytes()
    (left,) = (journal.parent / "trials").iterdir()
    assert list(left.glob("work/*/checkpoints/*")), "what trial 1 had done is still there"

    again = as_process("sweep", searched, "--json")
    assert again.code == 0, again.err
    assert "trial 1: training" in again.err
    assert "trial 0: training" not in again.err, "a finished trial is not trained again"
    assert journal.read_bytes().startswith(known)
    assert told(again.document) == told(whole.document)
    assert [row["number"] for row in again.document["trials"]] == [0, 1, 2]

    assert invoke("sweep", searched).code == 0, "nothing is left to do, and nothing is put on record twice"
    told_once = _on_record(searched, tmp_path / "log.jsonl", invoke)
    assert [(event["what"], event.get("trial")) for event in told_once] == [("begun", None), ("trial", 0), ("trial", 1), ("trial", 2), ("ended", None)]
    begun, first, *_, ended = told_once
    dataset = again.document["dataset"]
    assert (begun["dataset"], begun["trials"], begun["compared"]) == (dataset, 3, "validation loss")
    row = again.document["trials"][0]
    assert (first["state"], first["value"]) == (row["state"], row["value"])
    assert len({event["settings"] for event in told_once[1:4]}) == 3
    assert ended["complete"] + ended["pruned"] + ended["failed"] == ended["trials"] == 3
    (result,) = (searched / ".metier" / "sweep").glob("*/result.json")
    assert ended["result"] == hashlib.sha256(result.read_bytes()).hexdigest()
    assert {event["sweep"][:16] for event in told_once} == {result.parent.name}


def _on_record(project: Path, file: Path, invoke: Invoke) -> list[dict[str, Any]]:
    """Verify the log and return the facts of its events of sweeps."""
    assert invoke("audit", "verify", project).code == 0
    file.unlink(missing_ok=True)
    assert invoke("audit", "export", file, project).code == 0
    assert invoke("audit", "verify", file).code == 0
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    entries = [line["entry"] for line in lines if "entry" in line]
    return [entry["facts"] for entry in entries if entry["kind"] == "sweep"]


def test_a_sweep_that_is_asked_to_stop_ends_with_3_and_leaves_no_process(searched: Path, tmp_path: Path) -> None:
    process = _begin(searched, tmp_path / "log")
    _until(b"trial 0: validation", tmp_path / "log", process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 3
    assert "run the same command to go on" in (tmp_path / "log").read_text(encoding="utf-8")
    deadline = time.monotonic() + 20
    while _of_group(process.pid):
        assert time.monotonic() < deadline, _of_group(process.pid)
        time.sleep(0.1)


def test_a_trial_whose_process_is_killed_goes_on_from_its_last_checkpoint(searched: Path, tmp_path: Path) -> None:
    process = _begin(searched, tmp_path / "log", "--trials", "1")
    _until(b"trial 0: validation", tmp_path / "log", process)
    (worker,) = [pid for pid, command in _of_group(process.pid).items() if "spawn_main" in command]
    os.kill(worker, signal.SIGKILL)
    assert process.wait(120) == 0
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "trial 0: its process was killed by signal 9; it goes on from its last checkpoint" in log
    assert 3 <= log.count("trial 0: validation: ") <= 4, "at most the validation that was under way is measured again"


def test_what_a_sweep_prints_for_people(searched: Path, invoke: Invoke) -> None:
    ended = invoke("sweep", searched, "--trials", "2", "--no-prune")
    assert ended.code == 0, ended.err
    assert "trials, validation loss in nats a learnt token over" in ended.out
    assert "for the project file:" in ended.out
    lines = ended.out[ended.out.index("training:\n") :].split("report ")[0]
    assert set(yaml.safe_load(lines)["training"]) == {"learning_rate", "adaptation"}
    page = Path(ended.out.split("report ")[1].strip()).read_text(encoding="utf-8")
    assert "What to take" in page
    assert "sweep: 2/2 trials" in ended.err
    assert "learning_rate: 0.005\n" in (searched / "metier.yaml").read_text(encoding="utf-8"), "the project file is left alone"


def test_a_dry_run_says_what_would_be_tried_and_writes_nothing(searched: Path, invoke: Invoke) -> None:
    ended = invoke("sweep", searched, "--dry-run")
    assert ended.code == 0, ended.err
    assert "would train 3 trials, drawn one after the other, by the results before; 1 at a time, prune: median" in ended.out
    assert "learning_rate: 1e-05 to 0.02 (log)" in ended.out
    facts = invoke("sweep", searched, "--dry-run", "--json", "--parallel", "2", "--no-prune").document
    assert (facts["trials"], facts["grid"], facts["parallel"], facts["prune"]) == (3, False, 2, "none")
    assert not (searched / ".metier").exists()


def test_what_cannot_be_searched_is_refused_with_its_line_before_anything_is_made(searched: Path, invoke: Invoke) -> None:
    file = searched / "metier.yaml"
    text = file.read_text(encoding="utf-8").replace("adaptation.rank: [1, 4]", "adaptation.rnk: [1, 4]\n    adaptation.size: [8, 16]")
    file.write_text(text, encoding="utf-8")
    ended = invoke("sweep", searched)
    assert ended.code == 2
    for key in ("adaptation.rnk", "adaptation.size"):
        number = next(place for place, line in enumerate(text.splitlines(), 1) if key in line)
        assert f"metier.yaml:{number}: sweep.search.{key}: " in ended.err
    assert "did you mean 'adaptation.rank'?" in ended.err
    assert not (searched / ".metier").exists()


def test_a_rank_beyond_the_model_is_refused_before_the_data_is_read(searched: Path, invoke: Invoke) -> None:
    file = searched / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("[1, 4]", "[1, 400]"), encoding="utf-8")
    ended = invoke("sweep", searched)
    assert ended.code == 2
    assert "sweep.search.adaptation.rank: 400 is larger than the layer" in ended.err
    assert not (searched / ".metier").exists()


def test_a_sweep_by_the_score_of_a_task_says_so_everywhere_and_a_leak_is_refused(searched: Path, tmp_path: Path, invoke: Invoke) -> None:
    file = searched / "metier.yaml"
    text = file.read_text(encoding="utf-8").replace("{times: 3, limit: 12}", "{times: 1, limit: 6, by: score, tasks: [TASK]}")
    file.write_text(text.replace("TASK", "season"), encoding="utf-8")
    dry = invoke("sweep", searched, "--dry-run")
    assert dry.code == 0, dry.err
    assert "compared by: " in dry.out
    ended = invoke("sweep", searched, "--trials", "2", "--no-prune", "--json")
    assert ended.code == 0, ended.err
    found = ended.document
    assert found["compared"]["kind"] == "score"
    assert " of season (validation records)" in found["compared"]["name"]
    assert [row["value"] is not None for row in found["trials"]] == [True, True]
    assert found["best"]["standard_error"] is not None
    events = _on_record(searched, tmp_path / "log.jsonl", invoke)
    assert {event["compared"] for event in events if event["what"] == "trial"} == {found["compared"]["name"]}
    (searched / "items.jsonl").write_text('{"q": "one?", "a": "two"}\n', encoding="utf-8")
    keys = "dataset_path: items.jsonl\noutput_type: generate_until\ndoc_to_text: '{{q}}'\ndoc_to_target: '{{a}}'\n"
    (searched / "own.yaml").write_text(f"task: own\n{keys}metric_list: [{{metric: exact_match}}]\nmetadata: {{version: 1}}\n", encoding="utf-8")
    file.write_text(text.replace("TASK", "own.yaml"), encoding="utf-8")
    for command in ("sweep", "run"):
        refused = invoke(command, searched)
        assert refused.code == 2
        assert "own has items of its own, and a release is decided on them" in refused.err
