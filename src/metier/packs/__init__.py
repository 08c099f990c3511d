"""Domain packs: the contract, the folder loader, discovery by entry points and the conformance checks."""

from metier.packs.discovery import Installed, available, load, load_path
from metier.packs.loader import load_folder
from metier.packs.spec import (
    Control,
    Corpus,
    CorpusFacts,
    Examples,
    GuardRule,
    Identifier,
    Metric,
    Pack,
    PackFacts,
    Phrase,
    QualityRule,
    SyntheticSet,
    TaskSpec,
    Template,
    TemplateMessage,
    Term,
)

__all__ = [
    "Control",
    "Corpus",
    "CorpusFacts",
    "Examples",
    "GuardRule",
    "Identifier",
    "Installed",
    "Metric",
    "Pack",
    "PackFacts",
    "Phrase",
    "QualityRule",
    "SyntheticSet",
    "TaskSpec",
    "Template",
    "TemplateMessage",
    "Term",
    "available",
    "load",
    "load_folder",
    "load_path",
]
