"""Seeing inside a training: gradients and updates layer by layer, with a word where they go wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch

from metier.store import write_atomically
from metier.training.distribution import Distribution

__all__ = ["FILE", "Monitor", "layer_of"]

FILE = "diagnostics.jsonl"

_SAMPLE = 65_536
"""Numbers of a tensor whose movement is looked at: enough for a ratio, and no second copy of a large model."""

_REMEMBERED = 20
_ENOUGH = 5
_EXPLODES = 10.0
"""A gradient is said to explode at so many times the median of those before it."""

_VANISHES = 1e-6
"""A layer's gradient is said to vanish below this share of the median layer's, three times in a row."""

_IN_A_ROW = 3
_LEAPS = 0.3
"""An update is said to be too large where a layer's weights move by more than this share in one step, after the warm-up."""

_PARTS = ("lora_a", "lora_b", "magnitude", "directions", "trained_weight", "trained_bias", "gate.place", "weight", "bias")


def layer_of(parameter: str) -> str:
    """Return the layer that a parameter belongs to, without what every name begins with."""
    name = parameter.removeprefix("model.")
    for part in _PARTS:
        name = name.removesuffix(f".{part}")
    return name


class Monitor:
    """Looks at every n-th step; see `Watched` for when it is called. Writes one JSON line each time."""

    def __init__(
        self, parameters: Mapping[str, torch.Tensor], weights: Distribution, *, every: int, file: Path | None, say: Callable[[str], None], warm: int
    ) -> None:
        """`file` None: another process writes. `warm` are the steps in which the learning rate still rises."""
        self._parameters, self._weights, self._every, self._file, self._say, self._warm = dict(parameters), weights, every, file, say, warm
        self._steps = 0
        self._before: dict[str, torch.Tensor] = {}
        self._gradients: dict[str, float] = {}
        self._norms: list[float] = []
        self._silent: dict[str, int] = {}
        self.alarms: list[str] = []

    def begin(self, step: int) -> None:
        """Say how many steps were done before: what an interrupted attempt wrote of later ones is dropped."""
        self._steps = step
        if self._file is not None and self._file.exists():
            lines = [line for line in self._file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
            write_atomically(self._file, b"".join(line for line in lines if json.loads(line)["step"] <= step))

    @torch.no_grad()
    def watch(self) -> None:
        """Take the norms of the gradients, before they are clipped, and what the weights are before the step."""
        if (self._steps + 1) % self._every:
            return
        squares: dict[str, torch.Tensor] = {}
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                layer = layer_of(name)
                gradient = self._weights.here(parameter.grad)
                squares[layer] = squares.get(layer, torch.zeros((), device=parameter.device)) + gradient.float().square().sum()
            self._before[name] = self._some(parameter).clone()
        self._gradients = {layer: math.sqrt(value) for layer, value in self._summed(squares).items()}

    @torch.no_grad()
    def settle(self, step: int, total: int) -> None:
        """Compare the weights with what they were, write both down, and say what is wrong."""
        self._steps = step
        if not self._before:
            return
        moved: dict[str, torch.Tensor] = {}
        sizes: dict[str, torch.Tensor] = {}
        for name, parameter in self._parameters.items():
            layer, before = layer_of(name), self._before[name]
            nothing = torch.zeros((), device=parameter.device)
            moved[layer] = moved.get(layer, nothing) + (self._some(parameter) - before).float().square().sum()
            sizes[layer] = sizes.get(layer, nothing) + before.float().square().sum()
        self._before = {}
        far, large = self._summed(moved), self._summed(sizes)
        ratios = {layer: math.sqrt(far[layer] / max(large[layer], 1e-30)) for layer in far}
        self._look(step, ratios)
        if self._file is not None:
            row = {"step": step, "gradients": _rounded(self._gradients), "updates": _rounded(ratios)}
            with self._file.open("ab") as stream:
                stream.write(json.dumps(row).encode() + b"\n")

    def _look(self, step: int, ratios: Mapping[str, float]) -> None:
        norm = math.sqrt(math.fsum(value**2 for value in self._gradients.values()))
        if len(self._norms) >= _ENOUGH and norm > _EXPLODES * median(self._norms):
            self._alarm(
                f"step {step}: the gradient is {norm / median(self._norms):.0f} times as long as usual; it is clipped, and a lower learning rate may be needed"
            )
        self._norms = [*self._norms, norm][-_REMEMBERED:]
        usual = median(self._gradients.values()) if self._gradients else 0.0
        for layer, value in self._gradients.items():
            self._silent[layer] = self._silent.get(layer, 0) + 1 if value < _VANISHES * usual else 0
        if quiet := [layer for layer, times in self._silent.items() if times == _IN_A_ROW]:
            more = f" and {len(quiet) - 1} more" if len(quiet) > 1 else ""
            self._alarm(f"step {step}: hardly any gradient reaches {quiet[0]}{more}: it learns nothing")
        if step > self._warm and ratios:
            layer, ratio = max(ratios.items(), key=lambda item: item[1])
            if ratio > _LEAPS:
                self._alarm(f"step {step}: {layer} moved by {ratio:.0%} of its size in one step; lower training.learning_rate")

    def _some(self, parameter: torch.Tensor) -> torch.Tensor:
        flat = self._weights.here(parameter.detach()).reshape(-1)
        return flat[:: max(1, len(flat) // _SAMPLE)]

    def _summed(self, values: Mapping[str, torch.Tensor]) -> dict[str, float]:
        return dict(zip(values, self._weights.sums(list(values.values())), strict=True)) if values else {}

    def _alarm(self, message: str) -> None:
        kind = message.partition(": ")[2].split()[0:3]
        if not any(known.partition(": ")[2].split()[0:3] == kind for known in self.alarms):
            self._say(f"warning: {message}")
        self.alarms.append(message)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
