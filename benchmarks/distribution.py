"""Memory of each of two processes that train a model in full together: weights whole in each, or cut up over them.

    python benchmarks/distribution.py [--base bundled/gemma-3-270m] [--rows 4] [--processes 2] [--method full]

Each row is a packed row of invented sentences. Both ways train the same steps of two rows, write a checkpoint and hand in what was trained; the losses are
compared. Memory is what a process has to itself (RssAnon), sampled every 20 ms: files that are mapped are not in it. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

WAYS = ("replicated", "sharded")
ROW_TOKENS = 128


class Peak:
    """The largest anonymous memory of this process since the last phase began, phase by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, int] = {}
        self._name = "load"
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            text = Path("/proc/self/status").read_text()
            now = int(text.partition("RssAnon:")[2].split()[0]) * 1024
            self.phases[self._name] = max(self.phases.get(self._name, 0), now)
            time.sleep(0.02)

    def begin(self, name: str) -> None:
        """Begin a phase."""
        self._name = name


def member(way: str, base: str, method: str, store: Path, dataset: str, out: Path) -> None:
    """Train as one of several processes and write losses and memory."""
    peak = Peak()
    from metier.models import resolve
    from metier.store import Store
    from metier.training import TrainingSettings
    from metier.training.answers import prepare_answers
    from metier.training.launch import following

    given: dict[str, Any] = {"method": method, "precision": "float32", "epochs": 1.0, "validation": {"times": 0}, "checkpoint": {"steps": 2, "seconds": 1e6}}
    given["batch"] = {"row_tokens": ROW_TOKENS, "rows": 2, "maximum_tokens": ROW_TOKENS}
    settings = TrainingSettings.model_validate_json(json.dumps(given))
    kept = Store(store)
    workspace = kept.workspace(way)
    made = prepare_answers(kept.open("dataset", dataset), resolve(base, root=Path.cwd()), settings, None, workspace=workspace, sharded=way == "sharded")
    trainer = made.trainer
    save = trainer._save

    def saved() -> None:
        peak.begin("checkpoint")
        save()
        peak.begin("end")

    trainer._save = saved  # type: ignore[method-assign]
    peak.begin("steps")
    began = time.perf_counter()
    trainer.run()
    seconds = time.perf_counter() - began
    if not following():
        made.commit(workspace)
    time.sleep(0.1)
    rank = int(os.environ["RANK"])
    found = {"losses": trainer.losses, "peaks": peak.phases, "peak_memory_bytes": max(peak.phases.values()), "seconds": round(seconds, 1)}
    (out / f"{way}.{rank}.json").write_text(json.dumps(found))


def dataset_in(store: Path, rows: int) -> str:
    """Write invented conversations that fill about so many rows, and return the dataset's digest."""
    from metier.records import Message, Record, identify
    from metier.shards import write_records
    from metier.store import Store

    draw = random.Random(0)
    words = ["bee", "hive", "comb", "honey", "wax", "queen", "frame", "field", "river", "slope", "spring", "winter", "keeper", "clover", "swarm"]
    records = []
    for number in range(rows):
        text = " ".join(draw.choice(words) for _ in range(ROW_TOKENS // 2))
        talk = (Message("user", f"Question {number}?"), Message("assistant", text, learn=True))
        records.append(Record(id=identify(Record(id="", messages=talk)), messages=talk))
    folder = store / "making"
    folder.mkdir(parents=True)
    write_records(folder / "part-train-00000.parquet", records)
    return Store(store).commit("dataset", folder, parents=[], facts={"splits": {"train": rows}}).digest


def run(way: str, arguments: argparse.Namespace, store: Path, dataset: str) -> list[dict[str, Any]]:
    """Start the processes of one way and return what they found."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    started = []
    for rank in range(arguments.processes):
        joined = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(arguments.processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, __file__, "--way", way, "--base", arguments.base, "--method", arguments.method, "--store", str(store), "--dataset", dataset]
        started.append(subprocess.Popen(command, env=os.environ | joined | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}))
    if any(process.wait() for process in started):
        raise SystemExit(f"a process of {way} failed")
    return [json.loads((store / f"{way}.{rank}.json").read_text()) for rank in range(arguments.processes)]


def main() -> None:
    """Compare both ways, or be one of their processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--method", default="full")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dataset", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        member(arguments.way, arguments.base, arguments.method, arguments.store, arguments.dataset, arguments.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        dataset = dataset_in(store, arguments.rows)
        found = {way: run(way, arguments, store, dataset) for way in WAYS}
    apart = max(abs(one - other) for one, other in zip(found["replicated"][0]["losses"], found["sharded"][0]["losses"], strict=True))
    shares = [other["peak_memory_bytes"] / one["peak_memory_bytes"] for one, other in zip(found["replicated"], found["sharded"], strict=True)]
    about = {"machine": platform.processor() or platform.machine(), "cores": os.cpu_count(), "base": arguments.base, "method": arguments.method}
    print(
        json.dumps(
            {"benchmark": "distribution", "machine": about, "ours": found, "peers": {}, "ratios": {"memory": shares, "largest_difference_of_losses": apart}}
        )
    )


if __name__ == "__main__":
    main()
