"""The medical pack: its YAML files and the functions that they name."""

from pathlib import Path

from metier.packs import load_folder
from metier_medical.classifications import icd10, icd10_cm
from metier_medical.corpora import abstract_question, mimic_note
from metier_medical.parsing import consultation, icd_code
from metier_medical.scoring import category_match, department_match, urgency_match, valid_format
from metier_medical.validators import dea, has_digits

pack = load_folder(
    Path(__file__).parent,
    validators={"dea": dea, "has_digits": has_digits},
    parsers={"consultation": consultation, "icd_code": icd_code},
    scorers={
        "category_match": category_match,
        "department_match": department_match,
        "urgency_match": urgency_match,
        "valid_format": valid_format,
    },
    lexicons={"icd-10": icd10, "icd-10-cm": icd10_cm},
    readers={"abstract_question": abstract_question, "mimic_note": mimic_note},
)
