"""Low-rank adapters as a method: LoRA, rsLoRA, DoRA and QLoRA, with ranks of single layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metier.models.lora import adapter_state, attach, set_enabled
from metier.models.lorafile import AdapterWeights, lora_config, put
from metier.models.methods.interface import Shape

__all__ = ["LowRank", "attach_low_rank", "load_low_rank"]


class LowRank:
    """Low-rank adapters on a model; see `Tuned`."""

    virtual = 0

    def __init__(self, model: nn.Module, config: dict[str, Any]) -> None:
        self._model = model
        self._config = config

    def state(self) -> dict[str, torch.Tensor]:
        """Return A, B and, for DoRA, the magnitudes of every layer."""
        return adapter_state(self._model)

    def config(self) -> dict[str, Any]:
        """Return PEFT's configuration."""
        return dict(self._config)

    def enable(self, on: bool) -> None:
        """Switch all low-rank adapters on or off."""
        set_enabled(self._model, on)


def attach_low_rank(model: nn.Module, method: str, shape: Shape, seed: int) -> LowRank:
    """Freeze a model and put low-rank adapters beside its layers. Raises ModelError as `metier.models.lora.attach` does."""
    stabilised = method == "rslora"
    sizes = {"rank": shape.rank, "alpha": shape.alpha, "dropout": shape.dropout}
    attach(model, targets=shape.targets, seed=seed, ranks=shape.ranks, stabilised=stabilised, decomposed=method == "dora", packed=method == "qlora", **sizes)  # type: ignore[arg-type]
    return LowRank(model, lora_config(model, stabilised=stabilised, **sizes))  # type: ignore[arg-type]


def load_low_rank(model: nn.Module, weights: AdapterWeights) -> LowRank:
    """Attach low-rank adapters that were read and checked."""
    put(model, weights)
    return LowRank(model, lora_config(model, rank=weights.rank, alpha=weights.alpha, dropout=0.0, stabilised=weights.stabilised))
