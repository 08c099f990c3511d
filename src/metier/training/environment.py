"""The machine and the packages that a run was made with, and how much memory it took."""

from __future__ import annotations

import platform
import resource
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

__all__ = ["environment_of", "peak_memory"]


def peak_memory() -> int:
    """Return the largest resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def environment_of(accelerator: Accelerator) -> dict[str, Any]:
    """Return what names the machine and the packages of a run."""
    packages = {name: version(name) for name in ("torch", "transformers", "accelerate", "safetensors")}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "packages": packages,
    }
