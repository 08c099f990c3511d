"""Preparation by one process, several, and Ray on two nodes: rows a second, the same digest from all, and a node lost on the way.

    python benchmarks/scale.py [--rows 20000] [--workers 2] [--data FOLDER]

With `--data` (published corpora) rows are consultations of `medical/toyhom-im-sample`, repeated with other words; without it they are
invented. The two nodes are two Ray nodes on this machine, so the figure says what Ray costs, not how a cluster grows. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

from metier import packs, sources
from metier.engines import LOCAL, Engine, Processes, Ray
from metier.prepare import PrepareSettings, build
from metier.sources import SourceSettings
from metier.store import Store

WORDS = ["the", "a", "of", "and", "to", "in", "is", "was", "for", "on", "with", "as", "by", "at", "from", "it", "that", "this", "be", "are"]


def invented(count: int) -> Iterator[dict[str, str]]:
    """Yield rows of a question and an answer, none like another."""
    draw = random.Random(0)
    for number in range(count):
        words = [draw.choice(WORDS) if draw.random() < 0.5 else f"w{draw.randrange(50_000)}" for _ in range(60)]
        yield {"prompt": f"What of case {number}: {' '.join(words[:25])}?", "completion": f"It is {' '.join(words[25:])}; call 555-{number % 10_000:04d}."}


def published(folder: Path, count: int) -> Iterator[dict[str, str]]:
    """Yield consultations; beyond the first round each gets words of others, so that they are not duplicates."""
    path = next((folder / "medical" / "toyhom-im-sample").glob("*.csv"))
    rows = list(csv.DictReader(path.open(encoding="gb18030", newline="")))
    draw = random.Random(0)
    for number in range(count):
        row = rows[number % len(rows)]
        other = rows[draw.randrange(len(rows))] if number >= len(rows) else {"ask": "", "answer": ""}
        yield {"prompt": row["ask"] + other["ask"], "completion": row["answer"] + other["answer"]}


def measured(file: Path, engine: Engine, name: str) -> dict[str, Any]:
    """Build the dataset with an engine, in a project folder of its own with the same secret, and return figures."""
    root = file.parent / name
    (root / ".metier" / "keys").mkdir(parents=True)
    (root / ".metier" / "keys" / "surrogates").write_bytes(b"a benchmark has no secrets at all")
    shutil.copy(file, root)
    origin = sources.read([SourceSettings(path=file.name, licence="internal")], root)
    began = time.monotonic()
    dataset = build(origin, packs.load("medical"), PrepareSettings(), ["zh", "en"], workspace=Store(root / ".metier").workspace("k"), engine=engine)
    seconds = time.monotonic() - began
    return {"rows_per_second": round(dataset.facts["rows"] / seconds, 1), "seconds": round(seconds, 1), "digest": dataset.digest}


def on_two_nodes(file: Path, workers: int, *, lose: float | None) -> dict[str, Any]:
    """Build on a Ray cluster of two nodes; after `lose` seconds the second node is taken away."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": max(1, workers // 2), "include_dashboard": False})
    second = cluster.add_node(num_cpus=max(1, workers - workers // 2))
    timer = Timer(lose, lambda: cluster.remove_node(second, allow_graceful=False)) if lose is not None else None
    try:
        if timer:
            timer.start()
        return measured(file, Ray(cluster.address), "ray-losing-a-node" if lose is not None else "ray-two-nodes")
    finally:
        if timer:
            timer.cancel()
        cluster.shutdown()


def main() -> None:
    """Measure one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "rows.jsonl"
        rows = published(arguments.data, arguments.rows) if arguments.data else invented(arguments.rows)
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        ours = {"one process": measured(file, LOCAL, "one"), f"{arguments.workers} processes": measured(file, Processes(arguments.workers), "several")}
        ours["Ray, two nodes"] = on_two_nodes(file, arguments.workers, lose=None)
        ours["Ray, one of two nodes lost"] = on_two_nodes(file, arguments.workers, lose=ours["Ray, two nodes"]["seconds"] / 3)
    if len({item["digest"] for item in ours.values()}) != 1:
        sys.exit(f"the datasets differ: { {name: item['digest'][:12] for name, item in ours.items()} }")
    one = ours["one process"]["rows_per_second"]
    ratios = {name: round(item["rows_per_second"] / one, 2) for name, item in ours.items()}
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "scale", "machine": machine, "rows": arguments.rows, "ours": ours, "peers": {}, "ratios": ratios}))


if __name__ == "__main__":
    main()
