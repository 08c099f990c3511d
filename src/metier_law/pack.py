"""The law pack: its YAML files and the functions that they name."""

from pathlib import Path

from metier.packs import load_folder
from metier_law.corpora import READERS
from metier_law.scoring import articles_match

pack = load_folder(Path(__file__).parent, scorers={"articles_match": articles_match}, readers=READERS)
