"""How many parameters each way of adapting a model trains: formulas, no weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from metier.errors import ModelError, nearest
from metier.models.lora import ALL_LINEAR, pattern_of
from metier.models.methods import METHODS
from metier.training.planning.shape import LINEAR, ModelShape, layer_parameters, linear_layers, parameters
from metier.training.settings import TrainingSettings

__all__ = ["LOW_RANK", "VIRTUAL", "Method", "available", "check_targets", "method_of", "rank_of", "trainable_parameters"]

LOW_RANK = frozenset(name for name, facts in METHODS.items() if facts.low_rank)
"""Methods that put a low-rank update beside linear layers."""
VIRTUAL = frozenset(name for name, facts in METHODS.items() if facts.family == "virtual")
"""Methods that put virtual tokens before every example."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way of adapting a model, with the sizes that belong to it (see `metier.models.methods.Shape`); `last` are the layers of `partial`."""

    name: str
    rank: int = 16
    targets: tuple[str, ...] | str = ALL_LINEAR
    ranks: Mapping[str, int] = field(default_factory=dict)
    size: int = 64
    tokens: int = 20
    last: int = 2
    head: bool = False

    @property
    def virtual(self) -> int:
        """Virtual tokens before each example."""
        return self.tokens if self.name in VIRTUAL else 0

    @property
    def started(self) -> int:
        """The rank that training starts with: AdaLoRA begins with half as much again and gives it up."""
        return max(self.rank + 1, round(1.5 * self.rank)) if self.name == "adalora" else self.rank


def method_of(settings: TrainingSettings, examples: int, *, parts: int | None = None) -> Method:
    """Return the method that the project file asks for, `auto` resolved. Of a joint training, with the shared rank and those of `parts` own ones (all)."""
    given = settings.adaptation
    members = 1 + len(given.joint.projects) if given.joint.projects else 0
    own = given.joint.rank * min(members, members if parts is None else parts)
    rank, ranks = given.rank_for(examples) + own, {name: value + own for name, value in given.ranks.items()}
    sizes = {"size": given.size, "tokens": given.tokens, "last": given.layers}
    return Method(settings.taught_by, rank=rank, targets=given.targets, ranks=ranks, head=given.head, **sizes)


def available() -> tuple[str, ...]:
    """Return the methods that can be trained with what is installed here."""
    return tuple(name for name in METHODS if name != "qlora" or find_spec("bitsandbytes") is not None)


def _full_name(layer: int, name: str) -> str:
    return f"model.layers.{layer}.{'mlp' if name in LINEAR[4:] else 'self_attn'}.{name}"


def rank_of(method: Method, layer: int, name: str) -> int:
    """Return the rank of the update beside a linear layer, 0 where there is none."""
    if method.name not in LOW_RANK:
        return 0
    full = _full_name(layer, name)
    if method.targets != ALL_LINEAR and not any(f".{full}".endswith(f".{target}") for target in method.targets):
        return 0
    pattern = pattern_of(full, method.ranks)
    return method.started if pattern is None else method.ranks[pattern]


def check_targets(shape: ModelShape, method: Method) -> None:
    """Raise ModelError for a target that no layer of the model is called."""
    names = [_full_name(layer, name) for layer in range(shape.layers) for name in LINEAR]
    for target in method.targets if method.name in LOW_RANK and method.targets != ALL_LINEAR else ():
        if not any(f".{name}".endswith(f".{target}") for name in names):
            raise ModelError(f"training.adaptation.targets: no linear layer is called {target!r}\n    -> {nearest(target, [*LINEAR, ALL_LINEAR])}")


def trainable_parameters(shape: ModelShape, method: Method) -> int:
    """Return the number of trained parameters.

    Low rank: r (in + out) a layer (Hu et al. 2021, arXiv 2106.09685), for DoRA one magnitude an output more (Liu et al. 2024, arXiv
    2402.09353), for AdaLoRA one strength a direction more (Zhang et al. 2023, arXiv 2303.10512), for gated LoRA a gate a layer. Adapter: h b down and b h up,
    twice a layer (Houlsby et al. 2019, arXiv 1902.00751); parallel: once (He et al. 2021, arXiv 2110.04366). Prefix: keys and values of the virtual tokens in
    each layer (Li and Liang 2021, arXiv 2101.00190). Prompt: their embeddings (Lester et al. 2021, arXiv 2104.08691); p-tuning: these and
    a network of three biased layers (Liu et al. 2021, arXiv 2103.10385). Partial: the last layers, the last norm and, on request, the head.
    """
    if method.name in LOW_RANK:
        return sum(_low_rank(shape, method, layer) for layer in range(shape.layers))
    hidden, size = shape.hidden, method.size
    head = shape.vocabulary * hidden if method.head else 0
    counts = {
        "full": parameters(shape),
        "partial": min(method.last, shape.layers) * layer_parameters(shape) + hidden + head,
        "adapter": 4 * shape.layers * hidden * size,
        "parallel-adapter": 2 * shape.layers * hidden * size,
        "prefix": 2 * method.tokens * shape.layers * shape.keys,
        "p-tuning": method.tokens * hidden + 2 * hidden * size + size * size + 2 * size + hidden,
        "prompt": method.tokens * hidden,
    }
    return counts[method.name]


def _low_rank(shape: ModelShape, method: Method, layer: int) -> int:
    """Return the trained parameters of one decoder layer."""
    total = 0
    for name, (inputs, outputs) in linear_layers(shape).items():
        if rank := rank_of(method, layer, name):
            total += rank * (inputs + outputs)
            total += outputs if method.name == "dora" else rank if method.name == "adalora" else 1 if method.name == "gated-lora" else 0
    return total
