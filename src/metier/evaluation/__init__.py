"""Scores with intervals: what the tuned model does against the base model, paired, with every item kept."""

from metier.evaluation.labels import evaluate_labels
from metier.evaluation.settings import EvaluationSettings
from metier.evaluation.stage import evaluate
from metier.evaluation.task import item_files, task_files_digest

__all__ = ["EvaluationSettings", "evaluate", "evaluate_labels", "item_files", "task_files_digest"]
