"""Labels: suspected errors, contradictions, balance of classes. No label is changed here. See docs/guides/labels.md."""

from metier.prepare.labels.balance import Balance, class_balance, label_facts, plan
from metier.prepare.labels.settings import LabelSettings
from metier.prepare.labels.suspects import Examined, Suspect, contradictions, examine, leaving, write_review

__all__ = ["Balance", "Examined", "LabelSettings", "Suspect", "class_balance", "contradictions", "examine", "label_facts", "leaving", "plan", "write_review"]
