"""Personal identifiers: found by the rules of packs, replaced as a policy says, and looked for again afterwards."""

from metier.privacy.detect import Detector, Tagger, detect
from metier.privacy.general import general_identifiers, rules_of
from metier.privacy.keyed import Surrogates, surrogate_mark
from metier.privacy.once import Result, deidentify
from metier.privacy.policy import Policy, Treatment, load_policy, policies
from metier.privacy.replace import Deidentified, Replacement, deidentify_texts, looked_for
from metier.privacy.validators import VALIDATORS

__all__ = [
    "VALIDATORS",
    "Deidentified",
    "Detector",
    "Policy",
    "Replacement",
    "Result",
    "Surrogates",
    "Tagger",
    "Treatment",
    "deidentify",
    "deidentify_texts",
    "detect",
    "general_identifiers",
    "load_policy",
    "looked_for",
    "policies",
    "rules_of",
    "surrogate_mark",
]
