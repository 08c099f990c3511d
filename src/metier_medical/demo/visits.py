"""Visits as people tell them: symptoms of a disease in everyday words, in many sentence patterns, sometimes with personal identifiers."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from metier_medical.demo.catalogue import Department, Disease, departments, doses, medicine_names, read_data, symptom_names
from metier_medical.demo.people import People, Person

__all__ = ["LEVELS", "Visit", "visits"]

LEVELS = ("emergency", "soon", "routine")

# Shares of the visits that name the person, end with a way to reach them, name a medicine with its dose, say how it goes on.
_NAMED, _CONTACT, _MEDICINE, _COURSE = 0.15, 0.15, 0.15, 0.35


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit. `doses` are the one in the complaint and another in which the medicine is dispensed; empty without one."""

    person: str
    date: str
    complaint: str
    department: str
    urgency: str
    advice: str
    doses: tuple[str, ...] = ()
    planted: tuple[str, ...] = ()


def visits(language: str, count: int, *, seed: int, triaged: bool = False) -> Iterator[Visit]:
    """Yield `count` visits in a language, as many to each department; the same seed gives the same visits.

    `triaged` visits always say how the complaint goes on, because their urgency is asked for.
    """
    chance = random.Random(f"visits-{language}-{seed}-{triaged}")
    teller = _Teller(language, chance)
    order = [departments()[index % len(departments())] for index in range(count)]
    chance.shuffle(order)
    for department in order:
        yield teller.visit(department, triaged)


class _Teller:
    """Tells visits in one language from one stream of chance."""

    def __init__(self, language: str, chance: random.Random) -> None:
        self.language = language
        self.chance = chance
        self.people = People(language, chance)
        self.phrases: dict[str, Any] = read_data("phrases.yaml")[language]
        self.names = symptom_names(language)
        self.medicines = medicine_names(language)

    def visit(self, department: Department, triaged: bool) -> Visit:
        """Return one visit to a department."""
        chance, language = self.chance, self.language
        disease = chance.choice(department.diseases)
        person = self.people.draw(woman=department.key == "gynecology")
        date, level = self.people.day(), chance.choice(LEVELS)
        course = chance.choice(self.phrases["course"][level]) if triaged or chance.random() < _COURSE else ""
        medicine, dispensed = self._medicine(disease)
        slots = self._symptoms(disease) | {"since": chance.choice(self.phrases["since"]), "course": course, "medicine": medicine}
        slots["who"] = self._who(person)
        text = chance.choice(self.phrases["patterns"]).format_map(slots)
        if chance.random() < _CONTACT:
            text = _ended(text, language) + chance.choice(self.phrases["contacts"]).format_map(person.identifiers | {"date": date})
        complaint = _tidy(text, language)
        planted = tuple(value for key, value in person.identifiers.items() if key != "title" and value in complaint)
        answer = (department.name[language], self.phrases["urgency"][level], department.advice[language])
        return Visit(person.number, date, complaint, *answer, dispensed, planted)

    def _symptoms(self, disease: Disease) -> dict[str, str]:
        """Three symptoms, the first of which points to the department; a disease with fewer says one in two ways."""
        mark = self.chance.choice(disease.marks)
        others = [symptom for symptom in disease.symptoms if symptom != mark]
        self.chance.shuffle(others)
        chosen = [mark, *others, mark][:3]
        return {f"s{place}": self.chance.choice(self.names[symptom]) for place, symptom in enumerate(chosen, start=1)}

    def _medicine(self, disease: Disease) -> tuple[str, tuple[str, ...]]:
        if not disease.medicines or self.chance.random() >= _MEDICINE:
            return "", ()
        substance = self.chance.choice(disease.medicines)
        dispensed = doses(substance)
        chosen = tuple(self.chance.sample(dispensed, min(2, len(dispensed))))
        return self.chance.choice(self.phrases["medicines"]).format(drug=self.medicines[substance], dose=chosen[0]), chosen

    def _who(self, person: Person) -> str:
        pattern = self.chance.choice(self.phrases["named" if self.chance.random() < _NAMED else "who"])
        facts = {"age": str(person.age), "sex": self.phrases["sex"][person.sex], "initial": person.sex.upper()}
        return str(pattern).format_map(person.identifiers | facts)


def _ended(text: str, language: str) -> str:
    """Let a text end as a sentence ends, whichever slot stood last."""
    return re.sub("[,\uff0c:]$", "." if language == "en" else "\u3002", text.strip()) + (" " if language == "en" else "")


def _tidy(text: str, language: str) -> str:
    """Join what empty slots have left apart; English sentences begin with a capital."""
    text = re.sub(r"\s+", " ", _ended(text, language)).strip()
    text = re.sub(r" ([,.;:?])", r"\1", text)
    return re.sub(r"(?:^|(?<=[.?!:] ))[a-z]", lambda found: found.group().upper(), text) if language == "en" else text
