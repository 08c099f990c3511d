"""What is minimised: functions of a model and a packed row. Objectives add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, kl_div
from torch.nn.functional import cross_entropy as cross_entropy_of

from metier.errors import ModelError
from metier.models.attention import Packed
from metier.models.body import hidden_states
from metier.models.divergence import Side, divergences
from metier.models.head import label_losses
from metier.models.heads import Layout, computing_in, label_scores
from metier.models.labels import Labelling
from metier.models.methods import Tuned, switched_off
from metier.training.batches import Row
from metier.training.settings import ObjectiveSettings

__all__ = ["Losses", "Objective", "answer_losses", "answers_objective", "cross_entropy", "label_objective", "taught_losses"]

_ONE_OF_SEVERAL = frozenset({"classification", "tagging"})

Objective: TypeAlias = Callable[[Any, Row], torch.Tensor]
"""Returns the summed loss of a row, in nats; the loop divides by the learnt tokens of the whole step."""

Losses: TypeAlias = Callable[[Any, Row], torch.Tensor]
"""Returns the plain loss of each label of a row [labels], fp32: what validation measures, whatever is minimised."""


def answer_losses(model: Any, row: Row) -> torch.Tensor:
    """Return the negative log-likelihood of each of a row's labels; `model` is a causal language model of transformers."""
    return label_losses(_states(model, row), model.get_output_embeddings().weight, row.labels, _softcap(model))


def cross_entropy(model: Any, row: Row) -> torch.Tensor:
    """Return the negative log-likelihood of a row's labels, summed."""
    return answer_losses(model, row).sum()


def _softcap(model: Any) -> float | None:
    found: float | None = getattr(model.config, "final_logit_softcapping", None)
    return found


def _states(model: Any, row: Row) -> torch.Tensor:
    """Return the hidden states [labels, hidden] that predict a row's labels."""
    return hidden_states(model.get_decoder(), row.tokens, row.positions, Packed(row.lengths, behind=row.behind))[row.sources]


def answers_objective(settings: ObjectiveSettings, tuned: Tuned, teacher: Any = None) -> Objective:
    """Return the cross-entropy of answers, smoothed or focal, and divergences from a teacher and from the base model, as the settings weigh them.

    `teacher` is the loaded model that they name, if they name one. The hidden states are worked out once for all of them. With smoothing e, a
    token's loss is (1 - e) (-log p_y) + e mean_v(-log p_v); the focal loss is (1 - p_y)^g (-log p_y). A teacher of weight w makes of it
    (1 - w) loss + w T^2 KL(teacher || model), both at temperature T (Hinton et al. 2015, arXiv 1503.02531, section 2).
    """
    distillation = settings.distillation
    taught_by = teacher if distillation.teacher else None

    def objective(model: Any, row: Row) -> torch.Tensor:
        states, head, softcap = _states(model, row), model.get_output_embeddings().weight, _softcap(model)
        losses = label_losses(states, head, row.labels, softcap)
        taught = losses
        if settings.focal:
            taught = (1 - torch.exp(-losses)).clamp(min=0) ** settings.focal * losses
        if settings.smoothing:
            taught = taught + settings.smoothing * _own_above_mean(states, head, row.labels, softcap)
        total = taught.sum()
        if taught_by is not None:
            apart = divergences(Side(states, head, softcap), _seen(taught_by, _without_virtual(row, tuned.virtual)), temperature=distillation.temperature)
            total = (1 - distillation.weight) * total + distillation.weight * distillation.temperature**2 * apart.sum()
        if settings.kl:
            total = total + settings.kl * divergences(Side(states, head, softcap), _base(model, row, tuned)).sum()
        return total

    return objective


@torch.no_grad()
def _seen(model: Any, row: Row) -> Side:
    return Side(_states(model, row), model.get_output_embeddings().weight.detach(), _softcap(model))


def _base(model: Any, row: Row, tuned: Tuned) -> Side:
    """Return what the base model makes of a row, from the same weights with the trained part switched off."""
    with switched_off(tuned):
        return _seen(model, _without_virtual(row, tuned.virtual))


def _own_above_mean(states: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Return by how much each label's logit is above the mean over the vocabulary [labels]: mean_v(-log p_v) less -log p_y."""
    if softcap is not None:
        raise ModelError("training.objectives.smoothing is not worked out for models that cap their logits\n    -> set it to 0")
    # The mean of the logits is the product with the mean of the head's rows: the vocabulary is walked once, not once a label.
    return (states * (head[labels] - head.mean(dim=0))).sum(dim=1, dtype=torch.float32)


def _without_virtual(row: Row, count: int) -> Row:
    """Return a row without the `count` virtual tokens before each example."""
    if not count:
        return row
    real = row.tokens >= 0
    places = real.cumsum(dim=0) - 1
    behind = row.behind or (None,) * len(row.lengths)
    lengths = tuple(length - count if before is None else length for length, before in zip(row.lengths, behind, strict=True))
    return replace(row, tokens=row.tokens[real], positions=row.positions[real] - count, lengths=lengths, sources=places[row.sources])


def taught_losses(labelling: Labelling, layout: Layout, *, compute: torch.dtype | None = None) -> Losses:
    """Return the plain loss of a model with a head: cross-entropy of a class or a tag; binary cross-entropy, averaged over the labels;
    half the squared distance of a number in units of its spread.

    `compute` is the format that weights kept in fp32 are multiplied in.
    """
    return lambda model, row: _plain(_scores(model, row, layout, compute), row.labels, labelling)


def _plain(scores: torch.Tensor, labels: torch.Tensor, labelling: Labelling) -> torch.Tensor:
    if labelling.task in _ONE_OF_SEVERAL:
        return cross_entropy_of(scores, labels, reduction="none")
    if labelling.task == "regression":
        return (scores[:, 0] - labels) ** 2 / 2
    wanted = labels if labelling.task == "multi-label" else labels[:, None]
    return binary_cross_entropy_with_logits(scores, wanted, reduction="none").mean(dim=1)


def label_objective(
    labelling: Labelling, layout: Layout, settings: ObjectiveSettings, *, weights: torch.Tensor | None = None, compute: torch.dtype | None = None
) -> Objective:
    """Return what a model with a head minimises: its plain loss, smoothed, focal or weighted by class as the settings say, and beside it a teacher's word.

    `weights` [classes] belong to the true class; of several labels they weigh a text's having the label (see `class_weights`). A teacher of weight w makes of
    a loss (1 - w) loss + w T^2 KL(teacher || model), both at temperature T, of the classes or, averaged, of each label's yes and no; of numbers
    (1 - w) loss + w (number - teacher's)^2 / 2. Where the teacher says nothing the loss is as it is.
    """
    distillation = settings.distillation

    def objective(model: Any, row: Row) -> torch.Tensor:
        scores = _scores(model, row, layout, compute)
        losses = _weighed(scores, row.labels, labelling, settings, None if weights is None else weights.to(scores.device))
        if distillation.teacher and row.said is not None:
            heard = torch.isfinite(row.said).all(dim=1)
            apart = _from_teacher(scores, row.said.nan_to_num(), labelling, distillation.temperature)
            losses = torch.where(heard, (1 - distillation.weight) * losses + distillation.weight * apart, losses)
        return losses.sum()

    return objective


def _weighed(scores: torch.Tensor, labels: torch.Tensor, labelling: Labelling, settings: ObjectiveSettings, own: torch.Tensor | None) -> torch.Tensor:
    """Return the loss of each label: smoothed, focal and weighted by class."""
    if not settings.smoothing and not settings.focal and own is None:
        return _plain(scores, labels, labelling)
    if labelling.task in _ONE_OF_SEVERAL:
        losses = cross_entropy_of(scores, labels, reduction="none", label_smoothing=settings.smoothing)
        if settings.focal:
            losses = losses * (1 - torch.exp(-cross_entropy_of(scores, labels, reduction="none"))).clamp(min=0) ** settings.focal
        return losses if own is None else losses * own[labels]
    wanted = labels * (1 - settings.smoothing) + settings.smoothing / 2
    losses = binary_cross_entropy_with_logits(scores, wanted, reduction="none", pos_weight=own)
    if settings.focal:
        losses = losses * (torch.sigmoid(scores) - labels).abs() ** settings.focal
    return losses.mean(dim=1)


def _from_teacher(scores: torch.Tensor, said: torch.Tensor, labelling: Labelling, temperature: float) -> torch.Tensor:
    """Return how far each answer [labels] is from the teacher's, times the temperature squared (see `label_objective`)."""
    if labelling.task == "regression":
        return (scores - said)[:, 0].square() / 2
    ours, theirs = scores / temperature, said / temperature
    if labelling.task in _ONE_OF_SEVERAL:
        apart = kl_div(ours.log_softmax(dim=1), theirs.log_softmax(dim=1), reduction="none", log_target=True).sum(dim=1)
    else:
        # Yes and no of each label: the distribution of the logits (s, 0).
        pairs = [torch.stack([side, torch.zeros_like(side)], dim=-1).log_softmax(dim=-1) for side in (ours, theirs)]
        apart = kl_div(pairs[0], pairs[1], reduction="none", log_target=True).sum(dim=-1).mean(dim=1)
    return apart * temperature**2


def _scores(model: Any, row: Row, layout: Layout, compute: torch.dtype | None) -> torch.Tensor:
    with computing_in(model, compute):
        return label_scores(model, layout, row.tokens, row.positions, lengths=row.lengths, sources=row.sources, kinds=row.kinds)
