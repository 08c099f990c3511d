"""The results table of the READMEs, from a finished demo.

    metier demo FOLDER && python benchmarks/demo.py FOLDER [--language zh]

Prints Markdown: for each task its accuracy or share of matching answers, base and tuned with their intervals, the difference, items and verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

WORDS = {
    "en": ("task", "metric", "base", "tuned", "difference (95 % interval)", "items", "valid answers, base / tuned", "verdict"),
    "zh": ("任务", "指标", "基座", "微调后", "差值（95 % 区间）", "题数", "格式有效：基座 / 微调后", "结论"),
}
VERDICTS = {"gain": "提升", "loss": "下降", "no clear difference": "无明显差别"}


def outcome(folder: Path) -> dict[str, Any]:
    """Return what `metier run --json` says of a finished project."""
    done = subprocess.run([sys.executable, "-m", "metier.cli.main", "run", str(folder), "--json"], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(task: str, metric: str, found: dict[str, Any], language: str) -> list[str]:
    """Return the cells of one task."""
    base, tuned, delta, items = found["base"], found["tuned"], found["delta"], found["n"]
    invalid = found["invalid"]
    valid = [f"{100 * (1 - invalid[side] / items):.0f} %" for side in ("base", "tuned")]
    verdict = VERDICTS[found["verdict"]] if language == "zh" else found["verdict"]
    difference = (
        f"{delta['value']:+.2f} ({delta['low']:+.2f} to {delta['high']:+.2f})"
        if language == "en"
        else f"{delta['value']:+.2f}（{delta['low']:+.2f} 至 {delta['high']:+.2f}）"
    )
    return [task, metric, f"{base['value']:.2f}", f"{tuned['value']:.2f}", difference, str(items), " / ".join(valid), verdict]


def main() -> None:
    """Print the table and, below it, the machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--language", choices=sorted(WORDS), default="en")
    arguments = parser.parse_args()
    found = outcome(arguments.folder)
    lines = [WORDS[arguments.language], ["---"] * 8]
    for task, metrics in found["evaluation"]["tasks"].items():
        metric = min(metrics, key=lambda name: (name != "acc", not name.endswith("_match"), name))
        lines.append(row(task, metric, metrics[metric], arguments.language))
    for cells in lines:
        print("| " + " | ".join(cells) + " |")
    run = found["run"]
    print(f"\n{run['tokens_per_second']:.0f} tokens/s, {run['peak_memory_bytes'] / 2**30:.1f} GiB; {os.cpu_count()} cores, {platform.platform()}")


if __name__ == "__main__":
    main()
