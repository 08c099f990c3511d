"""The law pack: its YAML files and the functions that they name."""

from pathlib import Path

from metier.packs import load_folder
from metier_law.corpora import READERS
from metier_law.scoring import articles_match
from metier_law.validators import has_digits

pack = load_folder(
    Path(__file__).parent,
    validators={"has_digits": has_digits},
    scorers={"articles_match": articles_match},
    readers=READERS,
)
