"""The finance pack: its YAML files and the functions that they name."""

from pathlib import Path

from metier.packs import load_folder
from metier_finance.edgar import submissions
from metier_finance.filings import filing
from metier_finance.scoring import figures_match
from metier_finance.validators import aba, six_digits, three_digits

pack = load_folder(
    Path(__file__).parent,
    validators={"aba": aba, "six_digits": six_digits, "three_digits": three_digits},
    scorers={"figures_match": figures_match},
    readers={"filing": filing},
    fetchers={"submissions": submissions},
)
