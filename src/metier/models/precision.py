"""Which number format frozen weights are kept in: bf16 where this processor multiplies it faster than fp32."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.nn.functional import linear

from metier.models.bundled import cache_folder
from metier.store import write_atomically

__all__ = ["fastest_dtype", "matmul_peak", "measured_rates"]

_ROWS, _INNER, _COLUMNS = 512, 1024, 2048
_REPEATS = 12


def matmul_peak(dtype: torch.dtype, device: str = "cpu", *, rows: int = _ROWS, inner: int = _INNER, columns: int = _COLUMNS) -> float:
    """Return the best rate of a linear layer x [rows, inner] @ w [columns, inner]^T in `dtype`, in FLOP/s."""
    x, w = torch.randn(rows, inner, device=device, dtype=dtype), torch.randn(columns, inner, device=device, dtype=dtype)
    linear(x, w)
    best = float("inf")
    for _ in range(_REPEATS):
        if device != "cpu":
            torch.cuda.synchronize()
        start = time.perf_counter()
        linear(x, w)
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * rows * inner * columns / best


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith(("model name", "flags"))] if info.exists() else []
    return " | ".join([platform.machine(), platform.processor(), torch.__version__, *names[:2]])


def fastest_dtype(device: str = "cpu") -> torch.dtype:
    """Return the format for frozen weights on this machine; measured once (a fraction of a second) and remembered.

    On accelerators it is bf16 where they support it.
    """
    if device != "cpu":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    rates = measured_rates()
    return torch.bfloat16 if rates["bfloat16"] > 1.2 * rates["float32"] else torch.float32


def measured_rates() -> Mapping[str, float]:
    """Return the rates of this processor in FLOP/s, by format (`float32`, `bfloat16`); measured once and remembered."""
    path, processor = cache_folder() / "precision.json", _processor()
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        known = {}
    if known.get("processor") != processor:
        rates = {"float32": matmul_peak(torch.float32), "bfloat16": matmul_peak(torch.bfloat16)}
        known = {"processor": processor, "flops": rates}
        write_atomically(path, json.dumps(known, indent=1).encode())
    found: Mapping[str, float] = known["flops"]
    return found
