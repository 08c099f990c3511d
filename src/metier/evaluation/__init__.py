"""Scores with intervals: what the tuned model does against the base model, paired, with every item kept.

torch is loaded when a name that needs it is first used, not when this package is imported.
"""

from typing import TYPE_CHECKING

import lazy_loader

from metier.evaluation.labels import evaluate_labels
from metier.evaluation.settings import EvaluationSettings
from metier.evaluation.stage import evaluate
from metier.evaluation.task import item_files, task_files_digest

if TYPE_CHECKING:
    from metier.evaluation.attention import attention_of, attention_page, records_named
    from metier.evaluation.choosing import ValidationScore, validation_score
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__, submod_attrs={"attention": ["attention_of", "attention_page", "records_named"], "choosing": ["ValidationScore", "validation_score"]}
    )

__all__ = [
    "EvaluationSettings",
    "ValidationScore",
    "attention_of",
    "attention_page",
    "evaluate",
    "evaluate_labels",
    "item_files",
    "records_named",
    "task_files_digest",
    "validation_score",
]
