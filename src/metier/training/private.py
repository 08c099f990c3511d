"""Differentially private training: what one person's records can change in an expert is bounded, and how tightly is recorded.

DP-SGD (Abadi et al. 2016, arXiv 1607.00133, algorithm 1): every step draws each unit with the same chance, each unit's own gradient is clipped, the
sum gets Gaussian noise, and an accountant of Opacus says what all steps together give away. Opacus' own per-example gradients come from
hooks on layers, which packed rows and fused layers do not have; here a unit is read by itself, which is what the definition says, and works with every method.

A unit is a person (the record's subject) or, where a record names none, the row of the source that it came from: everything that is made of it
is drawn together and clipped together. Draws and noise come from a secret that is thrown away when the training ends.

A unit whose loss or gradient is no number adds nothing, which the clip allows, and the training goes on: to stop would tell of that unit, and would keep
everybody's training from ever ending. Only weights that are no numbers stop it, for they follow from what the guarantee covers already.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from metier.errors import MissingExtra, ModelError
from metier.store import Workspace
from metier.training.batches import Row, row_of
from metier.training.curriculum import Course, Plan, Stage
from metier.training.examples import Examples
from metier.training.gather import Gather, Gathered, to_device
from metier.training.guarded import PrivacySettings
from metier.training.objectives import Objective
from metier.training.settings import TrainingSettings
from metier.training.steps import Steps

__all__ = ["Guarantee", "PrivateSteps", "Promise", "guarantee_for", "private_course", "promised"]

_SMALL = 2000
"""Fewer units than this, and noise that keeps epsilon at 8 hurts badly (see Li et al. 2021, arXiv 2110.05679)."""

_BYTES = 32


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What is promised: (epsilon, delta) for adding or taking away one unit, and what it was worked out from."""

    epsilon: float
    delta: float
    accountant: str
    noise_multiplier: float
    sample_rate: float
    steps: int
    clip: float
    units: int
    by: str
    """`subject` if every unit is a person; else how many are, and that the others are rows."""

    def as_facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        named = {name: getattr(self, name) for name in ("epsilon", "delta", "accountant", "noise_multiplier", "sample_rate", "steps", "clip", "units")}
        return {**named, "unit": self.by, "covers": "the adapter; not the run's loss curve, drop ledger or data card"}


def guarantee_for(taught: Examples, settings: TrainingSettings) -> tuple[Guarantee, list[tuple[int, ...]]]:
    """Return the guarantee of a training and its units, each the places of its examples.

    The noise is the least that keeps all steps within epsilon. Raises MissingExtra without Opacus, ModelError where epsilon cannot be kept.
    """
    asked = settings.privacy
    units = _units(taught)
    rate = min(1.0, asked.units / len(units))
    steps = math.ceil(settings.epochs / rate)
    delta = min(1e-5, len(units) ** -1.1) if asked.delta == "auto" else asked.delta
    epsilon = asked.epsilon or math.inf
    noise, spent = _noise(asked, epsilon, delta, rate, steps)
    people = sum(1 for unit in units if taught.origins[unit[0]].person)
    by = "subject" if people == len(units) else f"{people} subjects, {len(units) - people} rows that name none"
    return Guarantee(spent, delta, asked.accountant, noise, rate, steps, asked.clip, len(units), by), units


def _units(taught: Examples) -> list[tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for place, origin in enumerate(taught.origins):
        found.setdefault(origin.unit, []).append(place)
    return [tuple(found[name]) for name in sorted(found)]


def _noise(asked: PrivacySettings, epsilon: float, delta: float, rate: float, steps: int) -> tuple[float, float]:
    """Return the noise multiplier and the epsilon that it gives."""
    try:
        from opacus.accountants import create_accountant
        from opacus.accountants.utils import get_noise_multiplier
    except ImportError:
        raise MissingExtra("opacus", "privacy", "private training") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            noise = get_noise_multiplier(target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant=asked.accountant)
        except ValueError as error:
            remedy = "raise it, or train for fewer epochs"
            raise ModelError(f"training.privacy.epsilon {epsilon:g} cannot be kept over {steps} steps ({error})\n    -> {remedy}") from None
        accountant = create_accountant(mechanism=asked.accountant)
        accountant.history = [(noise, rate, steps)]
        return float(noise), float(accountant.get_epsilon(delta=delta))


def _generator(secret: bytes, *key: Any) -> torch.Generator:
    digest = hashlib.blake2b(repr(key).encode(), key=secret, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def private_course(taught: Examples, settings: TrainingSettings, guarantee: Guarantee, units: Sequence[tuple[int, ...]], secret: bytes) -> Course:
    """Return the course: in every step each unit is there with the same chance, whatever the other steps have; a step may be empty."""
    steps = []
    for step in range(guarantee.steps):
        drawn = torch.rand(len(units), generator=_generator(secret, "draw", step), dtype=torch.float64) < guarantee.sample_rate
        steps.append(tuple(units[place] for place in drawn.nonzero()[:, 0].tolist()))
    plan = Plan(Steps(steps), max(1, round(1 / guarantee.sample_rate)))
    return Course(taught, Examples.none(), (Stage("training", settings, range(len(taught)), (), plan, 0),))


def promised(taught: Examples, settings: TrainingSettings, workspace: Workspace) -> tuple[Promise, Course]:
    """Return the promise of a training, which is said, and the course that keeps it."""
    guarantee, units = guarantee_for(taught, settings)
    workspace.progress.say(_remark(guarantee))
    promise = Promise(guarantee, workspace.folder / "chance.secret")
    return promise, private_course(taught, settings, guarantee, units, promise.secret)


@dataclass(frozen=True, slots=True)
class Promise:
    """A guarantee, and the file with the secret that draws and noise come from."""

    guarantee: Guarantee
    file: Path

    @property
    def secret(self) -> bytes:
        """The secret, made on first use; only the owner can read the file."""
        if not self.file.exists() or self.file.stat().st_size != _BYTES:
            self.file.unlink(missing_ok=True)
            with os.fdopen(os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secrets.token_bytes(_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
        return self.file.read_bytes()


class PrivateSteps:
    """Gradients of a step as DP-SGD has them: clipped unit by unit, added up, with noise, over the expected number of units."""

    def __init__(self, model: Any, promise: Promise, parameters: Mapping[str, torch.Tensor], accelerator: Accelerator) -> None:
        self.promise = promise
        self._model, self._accelerator, self._named = model, accelerator, parameters
        self._start = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def with_objective(self, objective: Objective) -> Gather:
        """Return what fills the gradients of steps, for this objective."""
        guarantee, secret, accelerator = self.promise.guarantee, self.promise.secret, self._accelerator
        parameters = list(self._named.values())
        spread, expected = guarantee.noise_multiplier * guarantee.clip, guarantee.sample_rate * guarantee.units

        def gather(taught: Examples, rows: Sequence[Sequence[int]], step: int) -> Gathered:
            if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters):
                remedy = "lower training.learning_rate, or set training.precision to float32"
                raise ModelError(f"trained weights are no longer numbers after {step} steps\n    -> {remedy}")
            total = [torch.zeros_like(parameter) for parameter in parameters]
            packed = [row_of([taught.examples[index] for index in unit]) for unit in rows]
            mine = packed[accelerator.process_index :: accelerator.num_processes]
            found = [self._add(to_device(row, accelerator.device), objective, parameters, total) for row in mine]
            losses = [loss for loss in found if loss is not None]
            loss, counted = math.fsum(losses), len(losses)
            if accelerator.num_processes > 1:
                total = [accelerator.reduce(item, reduction="sum") for item in total]
                both = accelerator.reduce(torch.tensor([loss, counted], dtype=torch.float64, device=accelerator.device), reduction="sum").tolist()
                loss, counted = both[0], round(both[1])
            chance = _generator(secret, "noise", step)
            for parameter, item in zip(parameters, total, strict=True):
                noise = torch.randn(item.shape, generator=chance).to(item.device)
                parameter.grad = ((item + spread * noise) / expected).to(parameter.dtype)
            tokens, labels = sum(len(row.tokens) for row in packed), sum(len(row.labels) for row in packed)
            return Gathered(loss / max(1, counted), tokens, labels, len(rows) - counted)

        return gather

    def _add(self, row: Row, objective: Objective, parameters: list[torch.Tensor], total: list[torch.Tensor]) -> float | None:
        """Add a unit's gradient, no longer than the bound, and return its mean loss a token (or label); None, and nothing added, where one is no number."""
        value = objective(self._model, row) / len(row.labels)
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        norm = torch.sqrt(sum((gradient.float().square().sum() for gradient in gradients if gradient is not None), torch.zeros((), device=value.device)))
        if not (torch.isfinite(norm) and torch.isfinite(value)):
            return None
        share = torch.clamp(self.promise.guarantee.clip / (norm + 1e-12), max=1.0)
        for item, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                item.add_(gradient * share)
        return float(value.detach())

    def close(self, *, leads: bool) -> None:
        """End the training: throw the secret away. Raises ModelError if a trained tensor is where it began: its guarantee would say nothing."""
        if leads:
            self.promise.file.unlink(missing_ok=True)
        still = [name for name, parameter in self._named.items() if torch.equal(parameter.detach(), self._start[name])]
        if still:
            what = f"private training did not move {still[0]!r} ({len(still)} of {len(self._named)} tensors)"
            raise ModelError(f"{what}\n    -> the expert is not what its guarantee is about: report this")


def _remark(guarantee: Guarantee) -> str:
    """Return what is to be said of a guarantee before training."""
    said = f"private: epsilon {guarantee.epsilon:.2f} at delta {guarantee.delta:.1g}, noise {guarantee.noise_multiplier:.2f}"
    said += f", {guarantee.steps} steps over {guarantee.units} units"
    return f"{said}; with fewer than {_SMALL} units the noise costs much of what is learnt" if guarantee.units < _SMALL else said
