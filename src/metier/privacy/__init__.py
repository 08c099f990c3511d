"""Personal identifiers: found by the rules of packs, replaced by consistent surrogates, and looked for again afterwards."""

from metier.privacy.detect import Detector, Tagger, detect
from metier.privacy.general import general_identifiers, rules_of
from metier.privacy.replace import Deidentified, Surrogates, deidentify, surrogate_mark
from metier.privacy.validators import VALIDATORS

__all__ = ["VALIDATORS", "Deidentified", "Detector", "Surrogates", "Tagger", "deidentify", "detect", "general_identifiers", "rules_of", "surrogate_mark"]
