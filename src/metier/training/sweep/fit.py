"""Do the searched values fit the base model? Asked of its shape alone: no weight is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers
from torch import nn

from metier.config import Document
from metier.errors import ConfigError, Fault, InputError, ModelError
from metier.models import Base
from metier.models.heads import is_encoder
from metier.models.labels import Labelling
from metier.models.lora import linear_layers
from metier.models.methods import METHODS, Shape, check_method
from metier.training.classweights import check_objectives
from metier.training.settings import TrainingSettings
from metier.training.sweep.space import Space
from metier.training.taught import label_method

__all__ = ["check_fit"]

_LOW_RANK = frozenset({"low-rank", "adaptive"})


def check_fit(space: Space, base: Base, document: Document) -> None:
    """Raise ConfigError with every searched value that this base model cannot be trained with: layers it does not have, ranks and layers beyond its own,
    and what labels are not taught by. `document` is the project file.
    """
    model = _shape(base, labels=space.training.task != "generation")
    encoder = space.training.task != "generation" and is_encoder(base)
    found: dict[tuple[str, str], Fault] = {}
    for key, _, settings in space.variants():
        if isinstance(settings, TrainingSettings):
            for place, what, remedy in _faults(settings, model, encoder=encoder):
                # A fault of what is not searched at this turn is found at the turn of its own key, or stands under training:.
                if place == key or not any(part.key == place for part in space.parts):
                    where = ("sweep", "search", place) if place == key else ("training", *place.split("."))
                    found.setdefault((place, what), document.fault(where, what, remedy))
    if found:
        raise ConfigError(found.values())


def _shape(base: Base, *, labels: bool) -> Any:
    """Return the base model without weights."""
    options = {"local_files_only": True, "trust_remote_code": False}
    kind = transformers.AutoModel if labels else transformers.AutoModelForCausalLM
    try:
        config = transformers.AutoConfig.from_pretrained(base.folder, **options)
        with torch.device("meta"):
            return kind.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the configuration of {base.name} cannot be used: {(str(error).splitlines() or [type(error).__name__])[0]}") from None


def _faults(settings: TrainingSettings, model: Any, *, encoder: bool) -> Iterator[tuple[str, str, str | None]]:
    """Yield (key, what, what to do) where these settings do not fit the model."""
    given = settings.adaptation
    method = settings.taught_by
    if settings.task != "generation":
        method = label_method(settings, encoder=encoder)
        yield from _of_objectives(settings)
        for key in given.unread_by(method):
            yield key, f"{method} does not use it, which {settings.task} is taught by here", "take it out, or set training.method: lora"
    if METHODS[method].family in _LOW_RANK:
        yield from _of_updates(settings, method, model)
    elif METHODS[method].family != "weights":
        yield from _of_places(method, model)
    layers = int(model.config.get_text_config().num_hidden_layers)
    if method == "partial" and given.layers > layers:
        yield "adaptation.layers", f"{given.layers} is more than the {layers} layers of the base model", f"use {layers} at most"


def _of_objectives(settings: TrainingSettings) -> Iterator[tuple[str, str, str | None]]:
    """Yield what this task is not taught with; which labels there are is known once the data is read."""
    objectives = settings.objectives.model_copy(update={"class_weights": {}})
    try:
        check_objectives(settings.model_copy(update={"objectives": objectives}), Labelling(settings.task, (), 0))  # type: ignore[arg-type]
    except InputError as error:
        yield from (((fault.key or "").removeprefix("training."), fault.what, fault.remedy) for fault in error.faults)


def _of_places(method: str, model: nn.Module) -> Iterator[tuple[str, str, str | None]]:
    """Yield that the model has no place for what the method adds, if it has none."""
    try:
        check_method(model, method, Shape())
    except ModelError as error:
        what, _, remedy = str(error).partition("\n    -> ")
        yield "method", what, remedy or None


def _of_updates(settings: TrainingSettings, method: str, model: nn.Module) -> Iterator[tuple[str, str, str | None]]:
    given = settings.adaptation
    try:
        names = linear_layers(model, given.targets)
    except ModelError as error:
        what, _, remedy = str(error).partition("\n    -> ")
        yield "adaptation.targets", what, remedy or None
        return
    if given.rank == "auto":
        return
    # AdaLoRA begins with half as much again and gives it up.
    rank = max(given.rank + 1, round(1.5 * given.rank)) if method == "adalora" else given.rank
    modules = {name: model.get_submodule(name) for name in names}
    smallest = min(min(int(module.in_features), int(module.out_features)) for module in modules.values())  # type: ignore[arg-type]
    if rank > smallest:
        name = next(name for name, module in modules.items() if smallest in (module.in_features, module.out_features))
        what = f"{given.rank} is larger than the layer {name!r} ({modules[name].in_features} x {modules[name].out_features})"
        yield "adaptation.rank", what if rank == given.rank else f"{what}, for adalora begins with rank {rank}", f"use {smallest} at most"
