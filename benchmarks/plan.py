"""How near `metier plan` comes: predicted peak memory and time against a training that is really done, on the bundled Gemma 3 270M.

    python benchmarks/plan.py [--only CASE ...] [--base bundled/gemma-3-270m]

Conversations of very different lengths, half Chinese, half English, are drawn by a seed from the texts that come with the package. Each case is planned and
trained in processes of their own. `counted` is what `--dry-run` says, without a single step; `calibrated` is after ten. Prints one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path
from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "all-linear": {"adaptation": {"rank": 16}, "precision": "bfloat16", "rows": 22, "batch": {"row_tokens": 1024, "maximum_tokens": 1024}},
    "query-value": {"adaptation": {"rank": 8, "targets": ["q_proj", "v_proj"]}, "precision": "bfloat16", "rows": 22, "batch": {"row_tokens": 1024}},
    "long-rows": {"adaptation": {"rank": 16}, "precision": "bfloat16", "rows": 11, "batch": {"row_tokens": 2048}},
    "short-rows": {"adaptation": {"rank": 32}, "precision": "bfloat16", "rows": 80, "batch": {"row_tokens": 256, "rows": 2}},
    "dropout": {"adaptation": {"rank": 16, "dropout": 0.1}, "precision": "bfloat16", "rows": 14, "batch": {"row_tokens": 1024}},
    "fp32": {"adaptation": {"rank": 16}, "precision": "float32", "rows": 12, "batch": {"row_tokens": 1024}},
}
SEED = 0


class Watch:
    """A progress that notes when the training began and ended."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def start(self, task: str, total: float | None = None, unit: str = "") -> None:
        self.times.setdefault(f"{task} began", time.perf_counter())

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        pass

    def finish(self, task: str, note: str = "") -> None:
        self.times[f"{task} ended"] = time.perf_counter()

    def say(self, message: str) -> None:
        pass


def conversations(count: int) -> list[Any]:
    """Return records of one question and one answer; lengths are log-normal."""
    from metier.records import Message, Record, identify

    generator = random.Random(SEED)
    lines = [line for line in resources.files("metier").joinpath("data/tiny_corpus.txt").read_text(encoding="utf-8").splitlines() if line.strip()]

    def text(mean: float) -> str:
        wanted, written = int(generator.lognormvariate(mean, 0.6)), ""
        while len(written) < wanted:
            written += generator.choice(lines) + " "
        return written[: max(2, wanted)]

    found = []
    for number in range(count):
        record = Record(id="", messages=(Message("user", text(4.8)), Message("assistant", text(4.8), learn=True)), task="talk", metadata={"number": number})
        found.append(Record(id=identify(record), messages=record.messages, task="talk"))
    return found


def prepare(case: str, folder: Path) -> tuple[Any, Any, Any]:
    """Return the store, the dataset and the settings of a case; the training reads about as many rows as the case says."""
    from metier.shards import write_records
    from metier.store import Store
    from metier.training import TrainingSettings

    given = dict(CASES[case])
    tokens = given.pop("rows") * given["batch"]["row_tokens"]
    making = folder / "making"
    making.mkdir()
    records = conversations(tokens // 100)
    write_records(making / "part-train-00000.parquet", records)
    write_records(making / "part-validation-00000.parquet", records[:24])
    store = Store(folder / ".metier")
    dataset = store.commit("dataset", making, parents=[], facts={"splits": {"train": len(records), "validation": 24}})
    settings = {"epochs": 1.0, "validation": {"times": 2, "patience": 99}, **given}
    return store, dataset, TrainingSettings.model_validate_json(json.dumps(settings))


def do_train(case: str, base: str) -> dict[str, Any]:
    """Train a case for real."""
    from metier.models import resolve
    from metier.training import train

    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        store, dataset, settings = prepare(case, Path(folder))
        run, _ = train(dataset, resolve(base, root=Path.cwd()), settings, workspace=store.workspace("train", watch))
    seconds = watch.times["training ended"] - watch.times["training began"]
    return {"peak_memory_bytes": run.facts["peak_memory_bytes"], "seconds": seconds, "tokens": run.facts["tokens"], "steps": run.facts["steps"]}


def do_plan(case: str, base: str) -> dict[str, Any]:
    """Plan a case, first by counting alone, then with ten steps."""
    from metier.models import resolve
    from metier.prepare.generate.retrieval import Index
    from metier.training.planning import Aims, Ask, advise

    def searcher(texts: Any) -> Any:
        index = Index(texts)
        return lambda query, count: [number for number, _ in index.search(query, count)]

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        _, dataset, settings = prepare(case, Path(folder))
        for name, measure in (("counted", False), ("calibrated", True)):
            ask = Ask(aims=Aims(general=True), items=0, measure=measure)
            advice = advise(dataset, resolve(base, root=Path.cwd()), settings, ask, searcher=searcher)
            row = advice["estimates"][0]
            found[name] = {"peak_memory_bytes": row["memory"]["total"], "seconds": row["seconds"], "memory": row["memory"], "tokens": advice["data"]["tokens"]}
    return found


def child(action: str, case: str, base: str) -> dict[str, Any]:
    """Run one action in a process of its own and return what it printed last."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, "--base", base, "--action", action, "--only", case], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        sys.exit(f"{action} {case} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> dict[str, Any]:
    """Return what names this machine."""
    cpuinfo = Path("/proc/cpuinfo")
    model = next((line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")), "") if cpuinfo.exists() else ""
    load, python, system = os.getloadavg()[0], platform.python_version(), platform.platform()
    return {"processor": model or platform.processor(), "cores": os.cpu_count(), "load": load, "python": python, "system": system}


def main() -> None:
    """Plan and train each case and print how far the plan was off."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--only", nargs="+", choices=tuple(CASES), default=list(CASES))
    parser.add_argument("--action", choices=("plan", "train"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.action:
        action = {"plan": do_plan, "train": do_train}[arguments.action]
        print(json.dumps(action(arguments.only[0], arguments.base)))
        return
    before = machine()
    ours, ratios = {}, {}
    for case in arguments.only:
        planned, trained = child("plan", case, arguments.base), child("train", case, arguments.base)
        ours[case] = {"planned": planned, "trained": trained}
        ratios[case] = {f"memory_{name}": planned[name]["peak_memory_bytes"] / trained["peak_memory_bytes"] for name in planned}
        ratios[case]["time_calibrated"] = planned["calibrated"]["seconds"][0] / trained["seconds"]
        print(f"{case}: " + ", ".join(f"{name} {ratio - 1:+.1%}" for name, ratio in ratios[case].items()), file=sys.stderr)
    print(json.dumps({"benchmark": "plan", "machine": before, "ours": ours, "peers": {}, "ratios": ratios}))


if __name__ == "__main__":
    main()
