"""Frozen weights packed to four bits (NF4 with double quantisation), for training low-rank adapters in little memory.

Dettmers et al. 2023 (QLoRA, arXiv 2305.14314), sections 3 and appendix E: blocks of 64 numbers, each with a scale that is itself packed to
eight bits. Packing and unpacking are those of bitsandbytes. Only training sees packed weights: an expert is evaluated and served on the
base model as it is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from metier.errors import MissingExtra

__all__ = ["PackedLinear", "pack_weights"]

_BLOCK = 64


class PackedLinear(nn.Module):
    """A frozen linear layer whose weights are packed; they are unpacked each time they are asked for."""

    def __init__(self, base: nn.Linear, functional: Any) -> None:
        super().__init__()
        self.in_features, self.out_features, self.bias = base.in_features, base.out_features, base.bias
        self._dtype = base.weight.dtype
        self._functional = functional
        packed, self._state = functional.quantize_4bit(base.weight.detach().contiguous(), blocksize=_BLOCK, compress_statistics=True, quant_type="nf4")
        self.register_buffer("packed", packed, persistent=False)
        self.packed: torch.Tensor

    @property
    def weight(self) -> torch.Tensor:
        """The weights [out, in], unpacked."""
        if self._state.absmax.device != self.packed.device:
            # The state is no buffer, so it does not follow the model to its device by itself.
            self._state.to(self.packed.device)
        found: torch.Tensor = self._functional.dequantize_4bit(self.packed, self._state)
        return found.to(self._dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for x [..., in_features]."""
        return linear(x, self.weight, self.bias)


@contextmanager
def _no_code_from_a_hub() -> Iterator[None]:
    """Keep bitsandbytes from fetching code from a hub while it is imported: it does where the package `kernels` is installed, and warns where not."""
    logger, name = logging.getLogger("bitsandbytes.backends.cpu.ops"), "kernels"
    there, before, level = name in sys.modules, sys.modules.get(name), logger.level
    sys.modules[name] = None  # type: ignore[assignment]
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if there and before is not None:
            sys.modules[name] = before
        else:
            del sys.modules[name]


def pack_weights(model: nn.Module, names: list[str]) -> None:
    """Pack the weights of a model's linear layers of these names. Raises MissingExtra where bitsandbytes is not installed."""
    try:
        with _no_code_from_a_hub():
            from bitsandbytes import functional
    except ModuleNotFoundError:
        raise MissingExtra("bitsandbytes", "qlora", "training.method: qlora") from None
    for name in names:
        parent_name, _, attribute = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        setattr(parent, attribute, PackedLinear(getattr(parent, attribute), functional))
