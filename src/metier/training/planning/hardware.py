"""What trains: this machine as it is found, and accelerators by their public specifications."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field

from metier.config import Settings, load_yaml, parse
from metier.errors import InputError, nearest
from metier.models import matmul_peak
from metier.models.precision import fastest_dtype

__all__ = ["Accelerators", "Machine", "accelerators", "named", "resident_bytes", "this_machine"]

_PEAK_SHARES = (0.2, 0.46)
"""Share of their peak at which accelerators train: from GPT-3's 21 % to PaLM's 46 % (Chowdhery et al. 2022, arXiv 2204.02311, table 3)."""

_PROCESSOR_SHARES = (0.4, 0.8)
"""The same for processors, against products measured in the same process: 68 % were reached with bf16 on Zen 4 (benchmarks/README.md)."""


class AcceleratorSpec(Settings):
    """One accelerator, as its maker specifies it."""

    name: str
    """How it is called on the command line."""
    memory_gb: float = Field(gt=0)
    """Memory in units of 10^9 bytes."""
    bf16_tflops: float = Field(gt=0)
    """Dense bf16 products with fp32 sums, in 10^12 operations a second: without structured sparsity."""
    bandwidth_gbs: float = Field(gt=0)
    """Bandwidth of its memory in 10^9 bytes a second."""


class Accelerators(Settings):
    """The file of accelerators; it lies beside this module, with the source of each figure."""

    accelerators: tuple[AcceleratorSpec, ...]
    """One entry a model."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Something to train on: bytes of memory, FLOP/s of products in the format of frozen weights, and at which shares of that it works.

    `precision` is bytes of a frozen weight. `bandwidth` is in bytes a second, None where it is not known.
    """

    name: str
    accelerator: bool
    memory: int
    flops: float
    shares: tuple[float, float]
    precision: int
    bandwidth: float | None = None

    def seconds(self, flops: float) -> tuple[float, float]:
        """Return the shortest and the longest time that so many FLOPs would take."""
        low, high = self.shares
        return flops / (self.flops * high), flops / (self.flops * low)


def accelerators() -> dict[str, Machine]:
    """Return the known accelerators by name."""
    found = parse(load_yaml(Path(__file__).parent / "data" / "accelerators.yaml"), Accelerators)
    return {
        item.name: Machine(item.name, True, round(item.memory_gb * 1e9), item.bf16_tflops * 1e12, _PEAK_SHARES, 2, item.bandwidth_gbs * 1e9)
        for item in found.accelerators
    }


def named(names: Sequence[str]) -> list[Machine]:
    """Return accelerators by name; `all` stands for every one. Raises InputError with every name that is not known."""
    known = accelerators()
    if "all" in names:
        return list(known.values())
    if unknown := [name for name in names if name not in known]:
        raise InputError("\n".join(f"no accelerator is called {name!r}\n    -> {nearest(name, list(known))}" for name in unknown))
    return [known[name] for name in names]


def this_machine(precision: str = "auto") -> Machine:
    """Return this machine; the rate of its products is measured now, in a fraction of a second, in the format of `training.precision`."""
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        dtype = fastest_dtype("cuda") if precision == "auto" else getattr(torch, precision)
        return Machine(
            str(found.name), True, int(found.total_memory), matmul_peak(dtype, "cuda", rows=4096, inner=4096, columns=4096), _PEAK_SHARES, dtype.itemsize
        )
    dtype = fastest_dtype() if precision == "auto" else getattr(torch, precision)
    name = f"{_processor()}, {torch.get_num_threads()} threads"
    return Machine(name, False, _memory(), matmul_peak(dtype), _PROCESSOR_SHARES, dtype.itemsize)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine())


def _memory() -> int:
    """Memory that this process may use: the machine's, or less where a control group says so."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        text = limit.read_text().strip() if limit.exists() else ""
        if text.isdecimal():
            total = min(total, int(text))
    return int(total)


def resident_bytes() -> tuple[int, int] | None:
    """Return the memory that this process holds now and the most that it ever held, in bytes; None where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    found = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return tuple(int(found[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
