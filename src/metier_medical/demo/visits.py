"""Visits as people tell them: symptoms of a disease in everyday words, in many sentence patterns, sometimes with personal identifiers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metier_medical.demo.catalogue import Department, Disease, departments, read_data, symptom_names
from metier_medical.demo.people import People

__all__ = ["Visit", "visits"]

_NAMED, _CONTACT, _MEDICINE, _COURSE = 0.15, 0.15, 0.15, 0.35
_DOSES = (5, 10, 20, 25, 50, 100, 250, 500)
_LEVELS = ("emergency", "soon", "routine")


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit. `dose` is the text of the dose in the complaint, or empty."""

    person: str
    date: str
    complaint: str
    department: str
    urgency: str
    advice: str
    dose: str = ""


def visits(language: str, count: int, *, seed: int, triaged: bool = False) -> Iterator[Visit]:
    """Yield `count` visits in a language, the departments in turn and then shuffled; the same seed gives the same visits.

    `triaged` visits always say how the complaint goes on, because their urgency is asked for.
    """
    chance = random.Random(f"visits-{language}-{seed}-{triaged}")
    teller = _Teller(language, chance, People(language, seed + triaged))
    order = [departments()[index % len(departments())] for index in range(count)]
    chance.shuffle(order)
    for department in order:
        yield teller.visit(department, triaged)


class _Teller:
    """Tells visits in one language from one stream of chance."""

    def __init__(self, language: str, chance: random.Random, people: People) -> None:
        self.language = language
        self.chance = chance
        self.people = people
        self.phrases: dict[str, Any] = read_data("phrases.yaml")[language]
        self.names = symptom_names(language)
        self._last_person = ""

    def visit(self, department: Department, triaged: bool) -> Visit:
        """Return one visit to a department."""
        chance, language = self.chance, self.language
        disease = chance.choice(department.diseases)
        sex = "f" if department.key == "gynecology" else chance.choice("fm")
        person = self.people.draw(sex)
        level = chance.choice(_LEVELS)
        course = chance.choice(self.phrases["course"][level]) if triaged or chance.random() < _COURSE else ""
        medicine, dose = self._medicine(disease)
        slots = self._symptoms(disease) | {"since": chance.choice(self.phrases["since"]), "course": course, "medicine": medicine}
        slots["who"] = self._who(sex, person)
        complaint = _tidy(chance.choice(self.phrases["patterns"]).format_map(slots), language)
        if chance.random() < _CONTACT:
            complaint = _tidy(complaint + " " * (language == "en") + chance.choice(self.phrases["contacts"]).format_map(person), language)
        urgency = self.phrases["urgency"][level]
        return Visit(self._person(), person["date"], complaint, department.name[language], urgency, department.advice[language], dose)

    def _symptoms(self, disease: Disease) -> dict[str, str]:
        """Three different symptoms, the first of which points to the department."""
        mark = self.chance.choice(disease.marks)
        others = [symptom for symptom in disease.symptoms if symptom != mark]
        self.chance.shuffle(others)
        chosen = [mark, *others, mark][:3]
        return {f"s{place}": self.chance.choice(self.names[symptom]) for place, symptom in enumerate(chosen, start=1)}

    def _medicine(self, disease: Disease) -> tuple[str, str]:
        if not disease.medicines[self.language] or self.chance.random() >= _MEDICINE:
            return "", ""
        dose = f"{self.chance.choice(_DOSES)} mg"
        drug = self.chance.choice(disease.medicines[self.language])
        return self.chance.choice(self.phrases["medicines"]).format(drug=drug, dose=dose), dose

    def _who(self, sex: str, person: dict[str, str]) -> str:
        chance = self.chance
        facts = person | {"age": str(chance.randrange(18, 86)), "sex": self.phrases["sex"][sex], "initial": sex.upper()}
        return str(chance.choice(self.phrases["named" if chance.random() < _NAMED else "who"])).format_map(facts)

    def _person(self) -> str:
        """The number of the person; every eighth visit or so is the same person's next one."""
        if not self._last_person or self.chance.random() > 0.125:
            self._last_person = f"P{self.chance.randrange(10**7):07d}"
        return self._last_person


def _tidy(text: str, language: str) -> str:
    """Join what empty slots have left apart and begin sentences of English with a capital."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.;:?])", r"\1", text)
    if language == "en":
        text = re.sub(r"(?:^|(?<=[.?!:] ))[a-z]", lambda found: found.group().upper(), text)
        text = re.sub(r"(?<=[a-z0-9])\. and ", " and ", text)
    return text
