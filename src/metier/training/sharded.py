"""Weights, gradients and optimiser state shared out over the processes of a training (FSDP2; Zhao et al. 2023, arXiv 2304.11277).

Every parameter is cut along its first dimension and each process keeps a part. A layer's weights are gathered when the layer is used, forward and
backward, and let go after; what stands outside of the layers (embedding, norms, head) is one group that stays from the forward pass to the end of the
backward pass, because the loss reads the head's weights itself. Gradients are added up where the part of the parameter lies.

A model whose weights are still on disk (`metier.models.stored`) is cut up first and filled then: each process reads its own rows of one tensor after the
other, and never holds more than its share and one such piece.

Gathering is something that all processes do together: each works on equally many rows of a step. One that has no row left works on another's with weight zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from metier.models.lora import LoraLinear
from metier.models.methods.weights import trained_layers
from metier.models.stored import Stored
from metier.training.distribution import Distribution, Replicated

__all__ = ["Sharded", "distribute"]

_ENTRY = "with_weights"
"""The method of a sharded model through which everything is called that uses it."""


class Sharded:
    """Every process has a part of each weight; see `Distribution`."""

    collective = True

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        """Share out a model that is the same in every process: whole, or still on disk."""
        self._accelerator = accelerator
        self._mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        stored: Stored | None = getattr(model, "stored", None)
        keys = {} if stored is None else stored.keys(model)
        blocks = list(_blocks(model))
        self._set_apart(model, blocks)
        for module in [*blocks, model]:
            fully_shard(module, mesh=self._mesh)
        for part in _sharded(model):
            # What processes hand in is already divided by the learnt tokens of the step: it is added up, not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)
        if stored is not None:
            self._fill(model, stored, keys)
            del model.stored
        setattr(model, _ENTRY, lambda function, *arguments: function(model, *arguments))
        register_fsdp_forward_method(model, _ENTRY)

    @torch.no_grad()
    def _fill(self, model: nn.Module, stored: Stored, keys: Mapping[str, str]) -> None:
        """Read this process's rows of each parameter that is not there yet."""
        device = self._accelerator.device
        # As `to_empty` does it, which would empty what is there too.
        model._apply(lambda tensor: torch.empty_like(tensor, device=device) if tensor.is_meta else tensor)  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters():
            if name in keys:
                here = self.here(parameter)
                # torch.chunk's way of cutting, which is FSDP's: equal pieces but for the last.
                start = min(self._accelerator.process_index * math.ceil(len(parameter) / self._accelerator.num_processes), len(parameter))
                here.copy_(stored.read(keys[name], start, start + len(here)))
        for layer in model.modules():
            if isinstance(layer, LoraLinear) and layer.magnitude is not None:
                # Rows of both are cut alike.
                self.here(layer.magnitude).copy_(self.here(layer.base.weight).float().norm(dim=1))

    def _set_apart(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        """Gather the base's weights beside trained ones only where they are asked for: where the model is to answer as the base does."""
        inside = {id(module) for block in blocks for module in block.modules()}
        for layer in trained_layers(model):
            if not list(layer.base.parameters()):
                continue
            base: Any = fully_shard(layer.base, mesh=self._mesh)
            layer.fetch = base.unshard
            if id(layer) in inside:
                # Others stay until the backward pass has ended: the loss reads a head's weights after its layer was called.
                layer.register_forward_hook(_leave)

    def call(self, model: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        """Gather what stands outside of the layers and call it; layers gather their own."""
        return getattr(model, _ENTRY)(function, *arguments)

    def turns(self, rows: int) -> Iterator[tuple[int, bool]]:
        """Yield equally many places in every process."""
        count, mine = self._accelerator.num_processes, self._accelerator.process_index
        for first in range(0, rows, count):
            yield min(first + mine, rows - 1), first + mine < rows

    def add_up(self, parameters: Sequence[torch.Tensor]) -> None:
        """The backward pass has done it."""

    def clip(self, parameters: Sequence[torch.Tensor], most: float) -> float:
        """Take the norm over the parts of all processes."""
        gradients = [self.here(parameter.grad) for parameter in parameters if parameter.grad is not None]
        squares = [gradient.float().square().sum() for gradient in gradients]
        norm = math.sqrt(math.fsum(self.sums(squares)))
        # As torch.nn.utils.clip_grad_norm_ has it.
        torch._foreach_mul_(gradients, min(1.0, most / (norm + 1e-6)))
        return norm

    def sums(self, values: Sequence[torch.Tensor]) -> list[float]:
        """Add up over the processes."""
        together = torch.stack([value.to(torch.float32) for value in values])
        distributed.all_reduce(together)
        return [float(value) for value in together]

    def here(self, tensor: torch.Tensor) -> torch.Tensor:
        """The part that lies here."""
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor

    def whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Gather it; all but the process that leads forget it at once."""
        if not isinstance(tensor, DTensor):
            return tensor
        found = tensor.full_tensor()
        return found if self._accelerator.is_main_process else found.new_empty(0)

    def share(self, tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Cut the part out of it; nothing is sent, for every process has read the whole."""
        if not isinstance(like, DTensor) or tensor.shape != like.shape:
            return tensor.to(like.device)
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    def agreed(self, said: bool) -> bool:
        """Ask the process that leads."""
        found = torch.tensor(int(said), device=self._accelerator.device)
        distributed.broadcast(found, 0)
        return bool(found)

    def rest(self, model: Any) -> None:
        """Let go of what a call without a backward pass has left: it would not see what happens to the parts."""
        for part in _sharded(model):
            part.reshard()

    @torch.no_grad()
    def assemble(self, model: Any) -> None:
        """Gather the trained weights and make the model's classes what they were."""
        self.rest(model)
        # What two places share stays shared.
        gathered: dict[int, nn.Parameter] = {}
        for module in list(model.modules()):
            for name, parameter in list(module.named_parameters(recurse=False)):
                if parameter.requires_grad:
                    if id(parameter) not in gathered:
                        gathered[id(parameter)] = nn.Parameter(self.whole(parameter))
                    setattr(module, name, gathered[id(parameter)])
            if isinstance(module, FSDPModule):
                module.__class__ = type(module).__bases__[1]


def distribute(model: nn.Module, accelerator: Accelerator, *, sharded: bool) -> Distribution:
    """Return how a model's weights lie over the processes; `sharded` cuts them up, where there are several."""
    return Sharded(model, accelerator) if sharded and accelerator.num_processes > 1 else Replicated(accelerator)


def _leave(layer: Any, _given: Any, _found: Any) -> None:
    if not layer.enabled:
        layer.base.reshard()


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model's layers: what stands in its outermost lists."""
    for child in model.children():
        yield from child if isinstance(child, nn.ModuleList) else _blocks(child)


def _sharded(model: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in model.modules() if isinstance(module, FSDPModule))
