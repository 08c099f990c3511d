"""Names of things brought to their preferred term and code: lexicons, negation, units, abbreviations, sections."""

from metier.prepare.standardize.lexicon import Concept, Lexicon, Match, compile_lexicon
from metier.prepare.standardize.negation import denied
from metier.prepare.standardize.settings import StandardizeSettings
from metier.prepare.standardize.step import TERMS, lexicon_of, mentions, standardize
from metier.prepare.standardize.units import write_units
from metier.prepare.standardize.user import read_lexicons

__all__ = [
    "TERMS",
    "Concept",
    "Lexicon",
    "Match",
    "StandardizeSettings",
    "compile_lexicon",
    "denied",
    "lexicon_of",
    "mentions",
    "read_lexicons",
    "standardize",
    "write_units",
]
