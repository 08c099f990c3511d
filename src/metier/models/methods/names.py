"""The methods of adapting a model, as data: what each is called, what it is made of, which settings it reads. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["METHODS", "Family", "MethodFacts", "MethodName"]

Family: TypeAlias = Literal["low-rank", "adaptive", "weights", "bottleneck", "virtual"]

MethodName: TypeAlias = Literal[
    "lora", "rslora", "dora", "qlora", "adalora", "gated-lora", "full", "partial", "adapter", "parallel-adapter", "prefix", "p-tuning", "prompt"
]


@dataclass(frozen=True, slots=True)
class MethodFacts:
    """What is known of a method before any model is loaded.

    `reads` are the keys under `training:` that belong to it and not to every method; `learning_rate` is its default.
    """

    family: Family
    reads: tuple[str, ...]
    learning_rate: float
    source: str
    label_rate: float | None = None
    """Its default for labels and spans, whose head begins at random, where that is another."""
    encoder_rate: float | None = None
    """The same for labels and spans on encoders, where that is another still."""
    moves: bool = False
    """Whether it moves the base model's own weights, each by a known amount: what `training.objectives.ewc` weighs."""
    measured: bool = True
    """Whether it is known how far what it trains is from its start: what `training.objectives.start` charges for."""
    shards: bool = True
    """Whether its weights can be shared out over the processes of a training (`engine.distribution: sharded`)."""

    def rate_for_labels(self, *, encoder: bool) -> float:
        """Return its default learning rate for labels and spans, on an encoder or a decoder."""
        if encoder and self.encoder_rate is not None:
            return self.encoder_rate
        return self.learning_rate if self.label_rate is None else self.label_rate

    @property
    def low_rank(self) -> bool:
        """Whether what is saved is a low-rank adapter: those share a step when they are served."""
        return self.family in ("low-rank", "adaptive")


_UPDATE = ("adaptation.rank", "adaptation.alpha", "adaptation.dropout", "adaptation.targets")
_LOW_RANK = (*_UPDATE, "adaptation.ranks", "adaptation.allocate")
_PLAIN = (*_LOW_RANK, "adaptation.joint")

METHODS: Mapping[str, MethodFacts] = {
    "lora": MethodFacts("low-rank", _PLAIN, 5e-4, "Hu et al. 2021, arXiv 2106.09685", encoder_rate=2e-3, moves=True),
    "rslora": MethodFacts("low-rank", _PLAIN, 2e-4, "Kalajdzievski 2023, arXiv 2312.03732", moves=True),
    "dora": MethodFacts("low-rank", _LOW_RANK, 5e-4, "Liu et al. 2024, arXiv 2402.09353", encoder_rate=2e-3, measured=False),
    "qlora": MethodFacts("low-rank", _LOW_RANK, 5e-4, "Dettmers et al. 2023, arXiv 2305.14314", encoder_rate=2e-3, shards=False),
    "adalora": MethodFacts("adaptive", _UPDATE, 1e-3, "Zhang et al. 2023, arXiv 2303.10512", moves=True, shards=False),
    "gated-lora": MethodFacts("adaptive", (*_UPDATE, "adaptation.ranks", "adaptation.gate"), 5e-4, "Louizos et al. 2018, arXiv 1712.01312", shards=False),
    "full": MethodFacts("weights", (), 2e-5, "every weight", label_rate=2e-4, moves=True),
    "partial": MethodFacts(
        "weights", ("adaptation.layers", "adaptation.head"), 5e-5, "the last layers, the final norm and a head of its own", label_rate=5e-4, moves=True
    ),
    "adapter": MethodFacts("bottleneck", ("adaptation.size",), 5e-4, "Houlsby et al. 2019, arXiv 1902.00751"),
    "parallel-adapter": MethodFacts("bottleneck", ("adaptation.size",), 5e-4, "He et al. 2021, arXiv 2110.04366, section 4"),
    "prefix": MethodFacts("virtual", ("adaptation.tokens",), 1e-2, "Li and Liang 2021, arXiv 2101.00190"),
    "p-tuning": MethodFacts("virtual", ("adaptation.tokens", "adaptation.size"), 1e-3, "Liu et al. 2021, arXiv 2103.10385"),
    "prompt": MethodFacts("virtual", ("adaptation.tokens",), 3e-2, "Lester et al. 2021, arXiv 2104.08691"),
}
"""Every method that can be trained, by its name in the project file."""
