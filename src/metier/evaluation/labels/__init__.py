"""Scores of models with a head: classes, several labels, numbers, pairs, spans; with intervals, and a table of every class or type."""

from metier.evaluation.labels.stage import evaluate_labels

__all__ = ["evaluate_labels"]
