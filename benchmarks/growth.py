"""Does training slow down, or take more memory, as the data grows? The same tiny model on a thousand, ten thousand, ... examples.

    python benchmarks/growth.py [--sizes 1000 10000 100000 1000000] [--steps 200] [--work FOLDER]

The model is so small that what is not arithmetic shows. For each size, in a process of its own: the examples a second that are tokenised, the seconds until
they are found again by a second training, the seconds of planning one epoch, the tokens a second of `--steps` steps drawn from the whole, and the
largest anonymous memory (what is mapped from disk can be given back at any time and is not counted). The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = [
    "发热",
    "咳嗽",
    "合同",
    "第三条",
    "患者",
    "利息",
    "甲方",
    "hospital",
    "account",
    "patient",
    "shall",
    "within",
    "thirty",
    "days",
    "notice",
    "loan",
    "dose",
]


def records(count: int) -> Iterator[Any]:
    """Yield invented conversations of 10 to 60 words."""
    from metier.records import Message, Record, identify

    drawn = random.Random(0)
    for number in range(count):
        question, answer = (" ".join(drawn.choices(WORDS, k=drawn.randint(5, 30))) for _ in range(2))
        made = Record(id="", messages=(Message("user", f"{number} {question}"), Message("assistant", answer, learn=True)), task="invented", language="en")
        yield Record(id=identify(made), messages=made.messages, task=made.task, language=made.language)


class Anonymous:
    """Watches this process's anonymous memory (Linux)."""

    def __init__(self) -> None:
        self.peak, self._ended = 0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            status = Path("/proc/self/status").read_text(encoding="ascii")
            found = next(line for line in status.splitlines() if line.startswith("RssAnon"))
            self.peak = max(self.peak, int(found.split()[1]) * 1024)

    def end(self) -> int:
        """Return the largest that was seen, in bytes."""
        self._ended.set()
        return self.peak


def one(count: int, steps: int, work: Path) -> dict[str, Any]:
    """Measure one size."""
    import torch
    from accelerate import Accelerator

    from metier.models import Chat, load_tokenizer, load_weights
    from metier.models.methods import Shape, attach_method
    from metier.progress import SILENT
    from metier.shards import write_records
    from metier.store import Store
    from metier.testing import tiny_base
    from metier.training.curriculum import Plan, plan_steps
    from metier.training.gather import Summing
    from metier.training.loop import run_steps
    from metier.training.objectives import cross_entropy
    from metier.training.reading import examples_of
    from metier.training.settings import BatchSettings, TrainingSettings
    from metier.training.steps import Steps

    torch.set_num_threads(1)
    store, base = Store(work / ".metier"), tiny_base(work / "base")
    making = work / "making"
    making.mkdir()
    for split, size in (("train", count), ("validation", 100)):
        write_records(making / f"part-{split}-00000.parquet", records(size))
    dataset = store.commit("dataset", making, parents=[], facts={"count": count})
    watched = Anonymous()
    settings = TrainingSettings(epochs=1.0, batch=BatchSettings(row_tokens=1024, rows=4))
    chat = Chat(load_tokenizer(base))
    kept = work / "tokens"
    began = time.perf_counter()
    examples_of(dataset, base, chat, settings, kept=kept, progress=SILENT)
    tokenising = time.perf_counter() - began
    began = time.perf_counter()
    taught, _ = examples_of(dataset, base, chat, settings, kept=kept, progress=SILENT)
    again = time.perf_counter() - began
    began = time.perf_counter()
    plan = plan_steps(taught, settings)
    planning = time.perf_counter() - began
    model: Any = load_weights(base, torch.float32)
    attach_method(model, "lora", Shape(rank=4, alpha=8.0), seed=0)
    learnt = [item for item in model.parameters() if item.requires_grad]
    gather = Summing(model.train(), cross_entropy, learnt, Accelerator(cpu=True), seed=0)
    spread = [plan.steps[number * len(plan.steps) // steps] for number in range(steps)]
    chosen = Plan(Steps(spread), steps)
    results = list(run_steps(taught, chosen, start=0, settings=settings, gather=gather, optimizer=torch.optim.AdamW(learnt)))[len(spread) // 10 :]
    return {
        "examples": count,
        "tokens": int(taught.lengths.sum()),
        "tokenised_a_second": round(count / tokenising),
        "found_again_seconds": round(again, 2),
        "planning_seconds": round(planning, 2),
        "tokens_per_second": round(sum(item.tokens for item in results) / sum(item.seconds for item in results)),
        "anonymous_bytes": watched.end(),
    }


def main() -> None:
    """Measure every size and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--work", type=Path, default=None, help="where to write; default: a temporary folder")
    parser.add_argument("--one", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(one(arguments.one, arguments.steps, arguments.work)))
        return
    found = []
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(dir=arguments.work) as work:
            command = [sys.executable, __file__, "--one", str(size), "--steps", str(arguments.steps), "--work", work]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(", ".join(f"{key} {value:,}" for key, value in found[-1].items()), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
