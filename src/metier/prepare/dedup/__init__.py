"""Duplicates across all sources, before anything is split; nothing but a few bytes a row is held in memory.

Exact duplicates share the digest of their content. Near-duplicates are found by MinHash over shingles and verified: each part of
the two records (question, answer, every field) has to reach the threshold of exact Jaccard similarity, and numbers, units, negations and other
words that turn a statement round have to be the same. A similar pair that fails this is kept in one cluster, so that it is never split.
"""

from metier.prepare.dedup.find import find_duplicates
from metier.prepare.dedup.result import Duplicates, Reasons
from metier.prepare.dedup.settings import DedupSettings
from metier.prepare.dedup.sign import Records, Row, Rows

__all__ = ["DedupSettings", "Duplicates", "Reasons", "Records", "Row", "Rows", "find_duplicates"]
