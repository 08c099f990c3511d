"""Quality of records: what is measured, what it says, and a verdict that explains itself. See docs/guides/quality.md."""

from metier.prepare.quality.assess import assess, form
from metier.prepare.quality.exchange import Exchange, exchange
from metier.prepare.quality.heuristics import Finding, FormRule, form_rules, judge_form
from metier.prepare.quality.knowledge import KnowledgeBase, Passage, passages_of, read_passages
from metier.prepare.quality.means import Means, means_for
from metier.prepare.quality.relevance import BaseEncoder, Encoder, FolderEncoder, LexicalEncoder, Relevance
from metier.prepare.quality.report import QUALITY_FILE, Summary, write_report
from metier.prepare.quality.scoring import DIMENSIONS, Assessment, Dimension
from metier.prepare.quality.screen import screen, screened
from metier.prepare.quality.settings import DialogueWeights, MatrixWeights, QualitySettings, QualityThresholds

__all__ = [
    "DIMENSIONS",
    "QUALITY_FILE",
    "Assessment",
    "BaseEncoder",
    "DialogueWeights",
    "Dimension",
    "Encoder",
    "Exchange",
    "Finding",
    "FolderEncoder",
    "FormRule",
    "KnowledgeBase",
    "LexicalEncoder",
    "MatrixWeights",
    "Means",
    "Passage",
    "QualitySettings",
    "QualityThresholds",
    "Relevance",
    "Summary",
    "assess",
    "exchange",
    "form",
    "form_rules",
    "judge_form",
    "means_for",
    "passages_of",
    "read_passages",
    "screen",
    "screened",
    "write_report",
]
