"""What ever more shapes cost: the time of a product's first run, and the memory that its code holds and keeps apart, in fp32 and bf16.

    python benchmarks/shapes.py [--lengths 1200]

One linear layer of Gemma 3 270M (640 to 2,048) reads rows of 1, 2, 3, ... tokens, each twice; then rows filled up as Metier fills them. The last line is JSON.
Needs glibc, whose `mallinfo2` says what is in use and what lies idle between.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from typing import Any

import torch
from torch.nn.functional import linear

from training import machine

NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class Heap(ctypes.Structure):
    """What glibc says of its heap."""

    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]


def heap() -> tuple[int, int]:
    """Return the bytes in use and those that lie idle."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Heap
    found = library.mallinfo2()
    return found.uordblks, found.fordblks


def measured(lengths: list[int], dtype: torch.dtype) -> dict[str, Any]:
    """Return what it costs to read rows of these lengths, first and again, in this order."""
    weight = torch.randn(2048, 640).to(dtype)
    linear(torch.zeros(1000, 640, dtype=dtype), weight)
    used, _ = heap()
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        for length in lengths:
            linear(torch.zeros(length, 640, dtype=dtype), weight)
        seconds.append(time.perf_counter() - began)
    now, idle = heap()
    return {
        "shapes": len(set(lengths)),
        "milliseconds_more_at_first": round(1000 * (seconds[0] - seconds[1]) / len(set(lengths)), 2),
        "megabytes_a_shape": round((now - used) / len(set(lengths)) / 1e6, 3),
        "used_megabytes": round((now - used) / 1e6),
        "idle_megabytes": round(idle / 1e6),
    }


def main() -> None:
    """Measure fp32, filled bf16 and plain bf16, in this order, for what is taken is not given back."""
    from metier.models.filling import filled

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, default=1200)
    arguments = parser.parse_args()
    before = machine()
    lengths = list(range(1, arguments.lengths + 1))
    cases = {
        "fp32": (lengths, torch.float32),
        "bf16, filled up": ([filled(length) for length in lengths], torch.bfloat16),
        "bf16": (lengths, torch.bfloat16),
    }
    ours = {}
    with torch.no_grad():
        for name, (chosen, dtype) in cases.items():
            ours[name] = measured(chosen, dtype)
            print(f"{name}: {ours[name]}")
    print(json.dumps({"benchmark": "shapes", "machine": before, "ours": ours, "peers": {}, "ratios": {}}))


if __name__ == "__main__":
    main()
