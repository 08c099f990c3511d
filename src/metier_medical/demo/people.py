"""People who do not exist: names, numbers with valid check digits, telephones, addresses of mail; seeded."""

from __future__ import annotations

import datetime
import random
from typing import Any

from metier_medical.demo.catalogue import package

__all__ = ["People"]

_LOCALES = {"zh": "zh_CN", "en": "en_US"}


class People:
    """Draws the personal identifiers of one visit in one language."""

    def __init__(self, language: str, seed: int) -> None:
        faker = package("faker", "faker")
        self.language = language
        self.random = random.Random(f"people-{language}-{seed}")
        self.faker: Any = faker.Faker(_LOCALES[language])
        self.faker.seed_instance(self.random.randrange(2**32))

    def draw(self, sex: str) -> dict[str, str]:
        """Return name, title, resident or social security number, telephone, record number, mail address and date of a visit."""
        faker = self.faker
        name = faker.name_female() if sex == "f" else faker.name_male()
        day = datetime.date(2025, 1, 6) + datetime.timedelta(days=self.random.randrange(400))
        return {
            "name": name.replace(" ", "") if self.language == "zh" else f"{faker.first_name_female() if sex == 'f' else faker.first_name_male()} {faker.last_name()}",
            "title": "Mrs" if sex == "f" else "Mr",
            "id": faker.ssn(),
            "phone": faker.phone_number() if self.language == "zh" else f"({self.random.randrange(201, 989)}) 555-{self.random.randrange(10_000):04d}",
            "mrn": f"{self.random.randrange(10_000_000):08d}",
            "email": faker.safe_email(),
            "date": day.isoformat(),
        }
