"""What was tried to make training quicker, against training as it is: compiling, threads, and how memory is handed out.

    python benchmarks/settings.py --data FOLDER [--rounds 3] [--only NAME ...]

FOLDER is that of `training.py`, whose 64 examples are trained here once for each variant and round, each in a process of its own, in turn. A variant that pays
belongs into Metier; what is listed here does not, or not everywhere. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from training import machine, run_metier

PLAIN = "as it is"
VARIANTS: dict[str, dict[str, str]] = {
    PLAIN: {},
    "torch.compile, each layer's feed-forward part": {"TRIED_COMPILE": "mlp"},
    "torch.compile, each layer": {"TRIED_COMPILE": "layer"},
    "pieces of attention not filled up": {"TRIED_PIECES": "plain"},
    "half the threads": {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))},
    "threads bound to cores": {"OMP_PROC_BIND": "true", "OMP_PLACES": "cores"},
    "large buffers kept by malloc": {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32 - 1), "MALLOC_TOP_PAD_": str(2**28)},
    "huge pages for malloc": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
}


def compiled(model: Any, part: str) -> Any:
    """Compile a part of each layer of a loaded model, for rows of any length."""
    for layer in model.get_decoder().layers:
        (layer.mlp if part == "mlp" else layer).compile(dynamic=True)
    return model


def child(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train with the settings that stand in the environment."""
    import metier.models
    from metier.models.filling import filled

    part, load = os.environ.get("TRIED_COMPILE"), metier.models.load_weights
    plain = "TRIED_PIECES" in os.environ
    with (
        patch("metier.models.attention.filled", lambda count, **given: count if plain else filled(count, **given)),
        patch("metier.models.load_weights", lambda *given: compiled(load(*given), part) if part else load(*given)),
    ):
        return run_metier(arguments)


def measured(name: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Run one variant in a process of its own; None: it did not end, or in more than `--limit` seconds."""
    command = [sys.executable, __file__, "--data", str(arguments.data), "--base", arguments.base, "--child"]
    try:
        done = subprocess.run(command, env=os.environ | VARIANTS[name], capture_output=True, text=True, check=False, timeout=arguments.limit)
    except subprocess.TimeoutExpired:
        print(f"{name}: more than {arguments.limit} s", file=sys.stderr)
        return None
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1][:300]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found['tokens_per_second']:.0f} tokens/s, {found['peak_memory_bytes'] / 2**30:.2f} GiB", file=sys.stderr)
    return found


def main() -> None:
    """Run the variants in turn and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="bundled/gemma-3-270m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=600)
    parser.add_argument("--only", nargs="*", choices=sorted(VARIANTS), default=list(VARIANTS))
    parser.set_defaults(method="lora", targets="q,v", examples=64, row_tokens=1024)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(arguments)))
        return
    before = machine()
    found: dict[str, list[dict[str, Any]]] = {}
    for _ in range(arguments.rounds):
        for name in dict.fromkeys([PLAIN, *arguments.only]):
            if (result := measured(name, arguments)) is not None:
                found.setdefault(name, []).append(result)
    speeds = {name: statistics.median(item["tokens_per_second"] for item in results) for name, results in found.items()}
    memory = {name: statistics.median(item["peak_memory_bytes"] for item in results) for name, results in found.items()}
    ratios = {name: {"speed": speeds[name] / speeds[PLAIN], "memory": memory[name] / memory[PLAIN]} for name in speeds if name != PLAIN}
    ours = {"tokens_per_second": speeds[PLAIN], "peak_memory_bytes": memory[PLAIN]}
    print(json.dumps({"benchmark": "settings", "machine": before, "ours": ours, "ratios": ratios}))


if __name__ == "__main__":
    main()
