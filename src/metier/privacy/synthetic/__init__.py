"""Sentences with invented identifiers, written from a seed, to measure what a detector misses: every value, its place and how it is disfigured is known."""

from metier.privacy.synthetic.sentences import Example, Material, examples, material, presidio
from metier.privacy.synthetic.values import MAKERS
from metier.privacy.synthetic.variants import VARIANTS

__all__ = ["MAKERS", "VARIANTS", "Example", "Material", "examples", "material", "presidio"]
