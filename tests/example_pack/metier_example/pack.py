"""The example pack: its YAML files and the functions that they name."""

from pathlib import Path

from metier.packs import load_folder
from metier_example.rules import count_match, hive_check, hive_count

pack = load_folder(Path(__file__).parent, validators={"hive_check": hive_check}, parsers={"hive_count": hive_count}, scorers={"count_match": count_match})
