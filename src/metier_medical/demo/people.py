"""People who do not exist: names, numbers with valid check digits, telephones, addresses of mail; seeded."""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass
from typing import Any

from metier_medical.demo.catalogue import package

__all__ = ["People", "Person"]

_LOCALES = {"zh": "zh_CN", "en": "en_US"}
# A domain reserved for tests (RFC 2606) that reads like a real one; addresses at example.com count as invented and are left alone.
_MAIL = "mail.test"
# Area codes that are in use: 911, 711 and their like begin no telephone number.
_AREAS = (212, 305, 312, 404, 415, 503, 617, 702, 713, 808)
_ADULT, _OLDEST, _OLDEST_MOTHER = 18, 85, 50


@dataclass(frozen=True, slots=True)
class Person:
    """One person: number in the records, sex (f or m), age in years, and identifiers by the name of their slot."""

    number: str
    sex: str
    age: int
    identifiers: dict[str, str]


class People:
    """Draws people of one language. About every eighth is the one before, who comes again."""

    def __init__(self, language: str, chance: random.Random) -> None:
        faker = package("faker", "faker")
        self.language = language
        self.chance = chance
        self.faker: Any = faker.Faker(_LOCALES[language])
        self.faker.seed_instance(chance.randrange(2**32))
        self._last: Person | None = None

    def draw(self, *, woman: bool) -> Person:
        """Return a person; `woman` asks for one of an age to bear children."""
        fits = self._last is not None and (not woman or (self._last.sex == "f" and self._last.age <= _OLDEST_MOTHER))
        if self._last is None or not fits or self.chance.random() > 0.125:
            self._last = self._new(woman)
        return self._last

    def day(self) -> str:
        """Return the date of a visit."""
        return (datetime.date(2025, 1, 6) + datetime.timedelta(days=self.chance.randrange(400))).isoformat()

    def _new(self, woman: bool) -> Person:
        chance, faker = self.chance, self.faker
        sex = "f" if woman else chance.choice("fm")
        given = faker.first_name_female() if sex == "f" else faker.first_name_male()
        name = f"{faker.last_name()}{given}" if self.language == "zh" else f"{given} {faker.last_name()}"
        identifiers = {
            "name": name,
            "title": "Mrs" if sex == "f" else "Mr",
            "id": faker.ssn(),
            "phone": faker.phone_number() if self.language == "zh" else f"({chance.choice(_AREAS)}) 555-{chance.randrange(10_000):04d}",
            "mrn": f"{chance.randrange(10_000_000):08d}",
            "email": f"{faker.user_name()}@{_MAIL}",
        }
        number = f"P{chance.randrange(10**7):07d}"
        return Person(number, sex, chance.randrange(_ADULT, (_OLDEST_MOTHER if woman else _OLDEST) + 1), identifiers)
