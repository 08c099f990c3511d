"""How many parameters each way of adapting a model trains: formulas, no weight is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from metier.errors import ModelError, nearest
from metier.training.planning.shape import LINEAR, ModelShape, layer_parameters, linear_layers, parameters

__all__ = ["LOW_RANK", "METHODS", "Method", "MethodName", "targeted", "trainable_parameters"]

MethodName: TypeAlias = Literal["full", "partial", "adapter", "parallel-adapter", "lora", "rslora", "dora", "qlora", "adalora", "prefix", "p-tuning", "prompt"]
METHODS: tuple[MethodName, ...] = get_args(MethodName)
LOW_RANK: frozenset[MethodName] = frozenset({"lora", "rslora", "dora", "qlora", "adalora"})
"""Methods that put a low-rank update beside linear layers."""

ALL_LINEAR = "all-linear"


@dataclass(frozen=True, slots=True)
class Method:
    """A way of adapting a model.

    `rank` and `targets` belong to the low-rank methods; `size` is the bottleneck of an adapter or the number of virtual tokens of prefix,
    p-tuning and prompt; `last` is how many layers `partial` trains.
    """

    name: MethodName
    rank: int = 16
    targets: tuple[str, ...] | str = ALL_LINEAR
    size: int = 64
    last: int = 2


def targeted(method: Method) -> frozenset[str]:
    """Return the names of the linear layers that a low-rank method updates. Raises ModelError for one that decoder layers do not have."""
    names: Sequence[str] = LINEAR if method.targets == ALL_LINEAR or isinstance(method.targets, str) else method.targets
    for name in names:
        if name not in LINEAR:
            raise ModelError(f"training.targets: no linear layer is called {name!r}\n    -> {nearest(name, [*LINEAR, ALL_LINEAR])}")
    return frozenset(names)


def trainable_parameters(shape: ModelShape, method: Method) -> int:
    """Return the number of trained parameters.

    Low rank: r (in + out) a layer (Hu et al. 2021, arXiv 2106.09685), for DoRA one magnitude an output more (Liu et al. 2024, arXiv
    2402.09353), for AdaLoRA one singular value a rank more (Zhang et al. 2023, arXiv 2303.10512). Adapter: two biased layers h-b-h with a
    bottleneck b, twice a layer (Houlsby et al. 2019, arXiv 1902.00751); parallel: once, beside the feed-forward part (He et al. 2022, arXiv
    2110.04366). Prefix: keys and values of `size` virtual tokens in each layer (Li and Liang 2021, arXiv 2101.00190). Prompt: `size`
    embeddings (Lester et al. 2021, arXiv 2104.08691); p-tuning: the same and an MLP of three hidden-to-hidden layers (Liu et al. 2021,
    arXiv 2103.10385, as in PEFT with its default width). Partial: the last layers, the last norm and the output head.
    """
    if method.name in LOW_RANK:
        return shape.layers * _low_rank(shape, method)
    hidden, size = shape.hidden, method.size
    bottleneck = 2 * hidden * size + size + hidden
    counts: dict[MethodName, int] = {
        "full": parameters(shape),
        "partial": min(method.last, shape.layers) * layer_parameters(shape) + hidden + shape.vocabulary * hidden,
        "adapter": 2 * shape.layers * bottleneck,
        "parallel-adapter": shape.layers * bottleneck,
        "prefix": 2 * size * shape.layers * shape.keys,
        "p-tuning": size * hidden + 3 * (hidden * hidden + hidden),
        "prompt": size * hidden,
    }
    return counts[method.name]


def _low_rank(shape: ModelShape, method: Method) -> int:
    """Return the trained parameters of one decoder layer."""
    names = targeted(method)
    total = 0
    for name, (inputs, outputs) in linear_layers(shape).items():
        if name in names:
            total += method.rank * (inputs + outputs)
            total += outputs if method.name == "dora" else method.rank if method.name == "adalora" else 0
    return total
