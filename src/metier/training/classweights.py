"""How much each label counts in the loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch

from metier.errors import Fault, InputError, nearest
from metier.models.labels import Labelling
from metier.training.examples import Example, Labelled
from metier.training.settings import DistillationSettings, ObjectiveSettings, TrainingSettings
from metier.training.support import unlabelled

__all__ = ["check_objectives", "class_weights"]

_KEY = "training.objectives"
_OUTSIDE = "O"


def check_objectives(settings: TrainingSettings, labelling: Labelling) -> None:
    """Refuse objectives, also those of single stages, that a task with labels has no use for. Raises InputError with all of them."""
    places = {_KEY: settings.objectives}
    places |= {f"training.stages.{number}.objectives": stage.objectives for number, stage in enumerate(settings.stages) if stage.objectives is not None}
    if faults := [fault for key, objectives in places.items() for fault in _faults(objectives, key, labelling)]:
        raise InputError(faults)


def _faults(objectives: ObjectiveSettings, key: str, labelling: Labelling) -> Iterator[Fault]:
    task = labelling.task
    for item in unlabelled(objectives):
        yield Fault(f"{task} is taught without `{item.key}`: {item.why}", key=f"{key}.{item.key}", remedy=item.instead)
    if task == "regression" and objectives.distillation.temperature != DistillationSettings().temperature:
        yield Fault("a teacher's numbers have no temperature", key=f"{key}.distillation.temperature", remedy="take it out")
    if task in ("regression", "pair"):
        for name in ("smoothing", "focal", "class_weights"):
            if getattr(objectives, name):
                yield Fault(f"{task} has no labels that `{name}` could be for", key=f"{key}.{name}", remedy="take it out")
    elif isinstance(objectives.class_weights, dict):
        known = [*labelling.labels, *([_OUTSIDE] if task == "tagging" else [])]
        for name in objectives.class_weights:
            if name not in known:
                yield Fault(f"there is no label {name!r}", key=f"{key}.class_weights", remedy=nearest(name, known))


def class_weights(settings: ObjectiveSettings, labelling: Labelling, examples: Sequence[Example]) -> torch.Tensor | None:
    """Return the weight of each output [classes], fp32, or None where all count alike.

    Where a labelling is stated, the examples must not be counted: weights are as they are given. Else, of one class among several, the weights
    are scaled so that they average 1 over the training labels: a loss stays comparable, and so does a learning rate. `balanced` is
    1 / (classes * share of the class). Where a text has several labels, a weight multiplies the loss of a label that applies; `balanced` is
    the number of texts without it over those with it.
    """
    if not settings.class_weights:
        return None
    given = settings.class_weights
    if labelling.stated and not isinstance(given, str):
        return _given(given, labelling)
    taught = [example for example in examples if isinstance(example, Labelled)]
    if labelling.task == "multi-label":
        held = torch.tensor([row for example in taught for row in example.targets]).sum(dim=0)
        texts = sum(len(example.targets) for example in taught)
        return (texts - held) / held.clamp(min=1) if isinstance(given, str) else _given(given, labelling)
    counts = Counter(target for example in taught for target in example.targets)
    seen = torch.tensor([float(counts[place]) for place in range(len(labelling.classes))])
    weights = seen.sum() / (len(seen) * seen.clamp(min=1)) if isinstance(given, str) else _given(given, labelling)
    return weights * seen.sum() / (weights * seen).sum().clamp(min=1e-12)


def _given(given: Mapping[str, float], labelling: Labelling) -> torch.Tensor:
    return torch.tensor([given.get(name.removeprefix("B-").removeprefix("I-") if labelling.by_word else name, 1.0) for name in labelling.classes])
