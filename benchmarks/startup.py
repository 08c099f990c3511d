"""How long it takes from the command to the first step: Gemma 3 270M, a dataset that is built, a base model that is assembled.

    python benchmarks/startup.py [--base bundled/gemma-3-270m] [--rounds 3]

Each round is a process of its own in a fresh copy of the project: the first finds nothing tokenised, the others find what it has left. Measured until the first
step begins (the time its metrics appear, less what the step took). Then the tokenizer is read in turn as Metier and as transformers read it, with the
garbage collector off, so that it does not decide. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training import machine

PROJECT = """metier: 1
project: startup
pack: law
languages: [en]
base: {base}
sources:
  - {{path: data.jsonl, licence: CC0-1.0, columns: {{prompt: question, completion: answer}}}}
prepare: {{deidentify: {{enabled: false}}, dedup: {{threshold: 1.0}}}}
training: {{epochs: 1, validation: {{times: 0}}}}
"""


def write(root: Path, base: str) -> None:
    """Write a project of 500 invented questions and build its dataset."""
    rows = [{"question": f"Who keeps the key to room {number}?", "answer": f"The keeper of floor {number // 10}."} for number in range(500)]
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "metier.yaml").write_text(PROJECT.format(base=base), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "metier", "data", "build", str(root)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until_first_step(root: Path) -> float:
    """Start a training, stop it after its first step, and return the seconds until that step began."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "metier", "train", str(root)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        while running.poll() is None:
            for path in (root / ".metier" / "work").glob("*/metrics.jsonl"):
                if (text := path.read_text(encoding="utf-8")).endswith("\n"):
                    seconds = time.perf_counter() - began - float(json.loads(text.splitlines()[0])["seconds"])
                    running.kill()
                    return seconds
            time.sleep(0.01)
    raise SystemExit("the training ended before its first step was seen")


def readings(name: str, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of reading the base model's tokenizer, by who reads it."""
    import transformers

    from metier.models import load_tokenizer, resolve
    from metier.models.tokenizer import forget_tokenizers

    base = resolve(name, root=Path.cwd())
    readers: dict[str, Callable[[], Any]] = {
        "metier": lambda: load_tokenizer(base),
        "transformers": lambda: transformers.AutoTokenizer.from_pretrained(base.folder, local_files_only=True),
    }
    found: dict[str, list[float]] = {reader: [] for reader in readers}
    gc.disable()
    load_tokenizer(base)  # What is imported on the way is imported now.
    forget_tokenizers()
    for _ in range(rounds):
        for reader, read in readers.items():
            began = time.perf_counter()
            read()
            found[reader].append(time.perf_counter() - began)
            forget_tokenizers()
            gc.collect()
    return found


def main() -> None:
    """Measure some rounds and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as name:
        whole = Path(name) / "whole"
        whole.mkdir()
        write(whole, arguments.base)
        for number in range(arguments.rounds):
            root = Path(name) / f"round-{number}"
            shutil.copytree(whole, root)
            if number:
                shutil.copytree(Path(name) / "round-0" / ".metier" / "tokens", root / ".metier" / "tokens")
            found.append(until_first_step(root))
            print(f"round {number}: {found[-1]:.1f} s", file=sys.stderr)
    ours = {"first": found[0], "later": statistics.median(found[1:] or found)}
    tokenizer = readings(arguments.base, arguments.rounds)
    print(json.dumps({"benchmark": "startup", "machine": machine(), "ours": ours, "seconds": found, "tokenizer_seconds": tokenizer}))


if __name__ == "__main__":
    main()
