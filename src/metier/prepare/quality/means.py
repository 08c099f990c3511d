"""What quality is measured with: the pack's rules, an encoder, a model, a knowledge base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier import models
from metier.errors import Fault, InputError
from metier.packs.spec import GuardRule, QualityRule
from metier.prepare.quality.knowledge import KnowledgeBase, read_passages
from metier.prepare.quality.relevance import BaseEncoder, Encoder, FolderEncoder
from metier.prepare.quality.settings import QualitySettings

__all__ = ["Means", "means_for"]


@dataclass(frozen=True, slots=True)
class Means:
    """What quality is measured with beside the settings. What is not given is not used, and the report says `not measured`."""

    guard: tuple[GuardRule, ...] = ()
    quality: tuple[QualityRule, ...] = ()
    encoder: Encoder | None = None
    """Takes the place of the lexical encoder."""
    model: Any = None
    """A `metier.models.LocalModel`; `model_digest` has to name it."""
    model_digest: str = ""
    knowledge: KnowledgeBase | None = None


def means_for(
    settings: QualitySettings, *, root: Path, base: models.Base | None = None, guard: Sequence[GuardRule] = (), quality: Sequence[QualityRule] = ()
) -> Means:
    """Load what the settings ask for; paths are relative to `root`.

    Raises InputError for `model: base` without a base model and for a knowledge base or an encoder that cannot be read.
    """
    if settings.model == "base" and base is None:
        raise InputError(Fault("needs the project's base model", key="prepare.quality.model", remedy="set `base:`, or model: none"))
    knowledge = None if settings.knowledge is None else KnowledgeBase(read_passages(root / settings.knowledge))
    model = models.LocalModel.open(base) if settings.model == "base" and base is not None else None
    encoder: Encoder | None = None
    if settings.encoder == "base":
        encoder = BaseEncoder(model)
    elif settings.encoder not in ("none", "lexical"):
        encoder = FolderEncoder(root / settings.encoder)
    digest = base.digest if model is not None and base is not None else ""
    return Means(tuple(guard), tuple(quality), encoder, model, digest, knowledge)
