"""New conversations from examples and a knowledge base: questions, passages, answers, checks, second turns."""

from metier.prepare.generate.knowledge import Knowledge, Passage, passages_of, read_folder
from metier.prepare.generate.retrieval import Index
from metier.prepare.generate.settings import GenerateSettings
from metier.prepare.generate.step import expected, generate, report

__all__ = ["GenerateSettings", "Index", "Knowledge", "Passage", "expected", "generate", "passages_of", "read_folder", "report"]
