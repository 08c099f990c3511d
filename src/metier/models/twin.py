"""A second model on the same tensors."""

from __future__ import annotations

import copy
import itertools

from torch import nn

__all__ = ["twin"]


def twin(model: nn.Module) -> nn.Module:
    """Return a model of the same modules whose parameters and buffers are those of `model`: layers can be replaced in one and not in the other."""
    shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)
