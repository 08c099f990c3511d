"""Every method on one real task: to which department a Chinese consultation belongs. Score, what was kept, size, time and memory, in one run.

    python benchmarks/methods.py --data FOLDER --work FOLDER [--tokens 60000] [--items 200] [--only lora ...]

`--data` holds `medical/toyhom-im-sample` as published. One dataset serves all; each method trains the same base model with its own default rate and sizes
on about `--tokens` tokens, in a process of its own, and is compared with the base model on the same items. What was measured is kept in `--work`: an
interrupted run goes on. Logistic regression over TF-IDF of letters and pairs of letters reads the same records and as many of them, and all. Prints a
Markdown table and, as the last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from labels import classical

PROJECT = """metier: 1
project: departments
pack: medical
languages: [zh]
base: {base}
sources:
  - path: data/*.csv
    licence: MIT
    basis: published data set
    language: zh
    columns: {{department: department, title: title, question: ask, answer: answer}}
    templates: [department-zh]
prepare:
  split: {{test: 0.2, validation: 0.02}}
training:
  method: {method}
  epochs: {epochs}
  batch: {{row_tokens: 512, maximum_tokens: 512}}
  validation: {{limit: 64, times: 2, patience: 9}}
evaluation: {{tasks: [pack, retention], limit: {items}, retention_items: 120}}
"""

TOKENS = 900_000
"""About how many tokens the training split has: what `--tokens` is a share of."""


def measure(method: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and compare one method, or take what an earlier run has measured."""
    root = arguments.work / "project"
    kept = arguments.work / f"{method}.json"
    if kept.exists():
        return dict(json.loads(kept.read_bytes()))
    (root / "data").mkdir(parents=True, exist_ok=True)
    shutil.copy(next((arguments.data / "medical" / "toyhom-im-sample").glob("*.csv")), root / "data")
    epochs = round(arguments.tokens / TOKENS, 4)
    text = PROJECT.format(base=arguments.base, method=method, epochs=epochs, items=arguments.items)
    (root / "metier.yaml").write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "metier", "evaluate", str(root), "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{method} ended with {done.returncode}")
    outcome = json.loads(done.stdout.splitlines()[-1])
    run = json.loads((root / ".metier" / "artifacts" / "run" / outcome["run"]["digest"] / "manifest.json").read_bytes())["facts"]
    found = {
        "tasks": outcome["evaluation"]["tasks"],
        "trainable_parameters": run["trainable_parameters"],
        "bytes": sum(file.stat().st_size for file in Path(outcome["adapter"]["path"]).glob("*.safetensors")),
        **{key: run[key] for key in ("seconds", "tokens", "steps", "tokens_per_second", "peak_memory_bytes", "final_loss", "validation_loss")},
        "learning_rate": run["settings"]["effective"]["learning_rate"],
    }
    kept.write_text(json.dumps(found), encoding="utf-8")
    return found


def _interval(score: dict[str, float]) -> str:
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| method | accuracy, 95 % interval | general ability kept | trained numbers | file | rate | tokens/s | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    scores: dict[str, Any] = {}
    for method, one in found.items():
        task, (metric, scores) = next((name, next(iter(metrics.items()))) for name, metrics in one["tasks"].items() if name != "retention")
        kept = one["tasks"]["retention"]["acc"]["delta"]
        cells = [
            f"`{method}`",
            _interval(scores["tuned"]),
            f"{kept['value']:+.3f} ({kept['low']:+.3f} to {kept['high']:+.3f})",
            f"{one['trainable_parameters']:,}",
        ]
        cells += [f"{one['bytes'] / 1e6:.1f} MB", f"{one['learning_rate']:g}", f"{one['tokens_per_second']:.0f}"]
        cells += [f"{one['peak_memory_bytes'] / 2**20:.0f} MiB"]
        lines.append(f"| {' | '.join(cells)} |")
    lines.append(f"| none: the base model | {_interval(scores['base'])} | | | | | | |")
    lines.append(f"\nTask: {task}, {metric}, {scores['n']} items; general ability: difference of the retention probe from the base model.")
    return "\n".join(lines)


def main() -> None:
    """Measure the methods one after the other."""
    from metier.models.methods import METHODS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    found = {}
    for method in arguments.only:
        found[method] = measure(method, arguments)
        print(f"{method}: {json.dumps({key: found[method][key] for key in ('seconds', 'steps', 'final_loss')})}", file=sys.stderr)
    print(table(found))
    root = arguments.work / "project"
    peers = {"logistic regression": {str(share): classical(root, reads="letters", share=share) for share in (min(1.0, arguments.tokens / TOKENS), 1.0)}}
    print("\n".join(f"Logistic regression, {one['records']} records, {one['items']} items: {one['acc']:.3f}" for one in peers["logistic regression"].values()))
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "methods", "machine": machine, "ours": found, "peers": peers, "ratios": {}}, ensure_ascii=False))


if __name__ == "__main__":
    main()
