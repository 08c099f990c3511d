"""What the example is made from: the data files beside this module and the catalogues that pip packages carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from metier.errors import MissingExtra

__all__ = ["DATA", "Department", "Disease", "departments", "doses", "medicine_names", "package", "read_data", "symptom_names"]

DATA = Path(__file__).parent / "data"

# A symptom is a mark of a department when at least this share of the diseases that show it belong there.
_MARK = 0.6


@dataclass(frozen=True, slots=True)
class Disease:
    """One disease of the catalogue: its symptoms by their English names, those that point to its department, and its substances."""

    symptoms: tuple[str, ...]
    marks: tuple[str, ...]
    medicines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Department:
    """One department of the example: its name and advice by language and the diseases it treats."""

    key: str
    name: dict[str, str]
    advice: dict[str, str]
    diseases: tuple[Disease, ...]


def package(module: str, distribution: str) -> Any:
    """Import a module of an optional package. Raises MissingExtra that names the extra `demo`."""
    try:
        return import_module(module)
    except ImportError:
        raise MissingExtra(distribution, "demo", "the example project") from None


def read_data(name: str) -> Any:
    """Return the content of one YAML file of the example's data folder."""
    return yaml.safe_load((DATA / name).read_text(encoding="utf-8"))


def _catalogues() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The same diseases in English and Chinese, in the same order."""
    english = package("faker_healthcare.disease_correlations", "faker-healthcare-provider").DISEASE_CORRELATIONS
    chinese = package("faker_healthcare.zh_CN.disease_correlations", "faker-healthcare-provider").DISEASE_CORRELATIONS
    return list(english.values()), list(chinese.values())


@lru_cache(maxsize=1)
def departments() -> tuple[Department, ...]:
    """Return the departments with their diseases. A disease none of whose symptoms points to a department is left out."""
    english, _ = _catalogues()
    ladders = package("faker_healthcare.prescribing", "faker-healthcare-provider").DOSE_LADDERS
    substances = {name: key for key, name in medicine_names("en").items() if key in ladders}
    described: dict[str, dict[str, Any]] = read_data("departments.yaml")["departments"]
    owner = {specialty: key for key, item in described.items() for specialty in item["specialties"]}
    seen = Counter((symptom, owner[row["medical_specialty"]]) for row in english if row["medical_specialty"] in owner for symptom in row["symptoms"])
    total: Counter[str] = Counter()
    for (symptom, _), count in seen.items():
        total[symptom] += count
    diseases: dict[str, list[Disease]] = {key: [] for key in described}
    for one in english:
        key = owner.get(one["medical_specialty"])
        marks = tuple(symptom for symptom in one["symptoms"] if key and seen[symptom, key] / total[symptom] >= _MARK)
        if key and marks:
            given = tuple(substances[name] for name in one["medications"] if name in substances)
            diseases[key].append(Disease(tuple(one["symptoms"]), marks, given))
    return tuple(Department(key, {"zh": item["zh"], "en": item["en"]}, item["advice"], tuple(diseases[key])) for key, item in described.items())


def medicine_names(language: str) -> dict[str, str]:
    """Return the name of each substance in a language, by the catalogue's key."""
    part = "zh_CN." if language == "zh" else ""
    return dict(package(f"faker_healthcare.{part}clinical_labels", "faker-healthcare-provider").MEDICATION_NAMES)


def doses(substance: str) -> tuple[str, ...]:
    """Return the doses in which a substance of a disease is dispensed, with their unit."""
    ladder = package("faker_healthcare.prescribing", "faker-healthcare-provider").DOSE_LADDERS[substance]
    return tuple(f"{dose} {ladder['unit']}" for dose in ladder["doses"])


@lru_cache(maxsize=2)
def symptom_names(language: str) -> dict[str, Sequence[str]]:
    """Return the ways to say each symptom in a language, by the symptom's English name."""
    english, chinese = _catalogues()
    said: dict[str, Any] = read_data("symptoms.yaml")["symptoms"]
    names: dict[str, Sequence[str]] = {}
    for one, other in zip(english, chinese, strict=True):
        for name, translated in zip(one["symptoms"], other["symptoms"], strict=True):
            names[name] = [translated if language == "zh" else name.lower(), *said.get(name, {}).get(language, ())]
    return names
