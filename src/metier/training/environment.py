"""The machine and the packages that a run was made with, and how much memory it took."""

from __future__ import annotations

import ctypes
import gc
import platform
import resource
from importlib.metadata import version
from typing import Any

import torch
from accelerate import Accelerator

from metier.models.tokenizer import forget_tokenizers

__all__ = ["environment_of", "give_back_memory", "peak_memory"]


def give_back_memory() -> None:
    """Let go of what only the preparation of a training needed, and hand its memory back to the system (with glibc; others do so when they like)."""
    forget_tokenizers()
    gc.collect()
    if platform.system() == "Linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


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
