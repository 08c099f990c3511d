"""Writes file notes on invented customers, with missing values and wrong grades on purpose; the same for the same seed."""

from __future__ import annotations

import csv
import datetime
import random
import sys
from pathlib import Path

import yaml
from faker import Faker

HERE = Path(__file__).parent
COUNTS = (180, 90, 30)
"""Customers of each grade, from low to high."""
MISGRADED, UNGRADED, AGELESS, COPIES = 12, 6, 20, 7


def main(seed: int = 0, folder: Path = HERE) -> set[str]:
    """Write the table below `folder` and return every identifier that stands in it."""
    words = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    chance, faker = random.Random(seed), Faker("zh_CN")
    faker.seed_instance(seed)
    planted: set[str] = set()
    rows = []
    grades = list(words["grades"])
    for grade, count in zip(grades, COUNTS, strict=True):
        for _ in range(count):
            number = f"KH{len(rows):06d}"
            name = chance.choice(words["surnames"]) + chance.choice(words["given"])
            phone, card = faker.unique.phone_number(), faker.unique.credit_card_number()
            planted |= {number, name, phone, card}
            note = words["note"].format(
                name=name,
                phone=phone,
                card=card,
                payments=chance.choice(words["grades"][grade]["payments"]),
                debt=chance.choice(words["grades"][grade]["debt"]),
                share=chance.randint(5, 95),
                work=chance.choice(words["work"]),
                years=chance.randint(1, 30),
                amount=chance.randint(3, 400),
            )
            day = datetime.date(2025, 1, 6) + datetime.timedelta(days=chance.randrange(365))
            age = str(chance.randint(20, 75))
            rows.append([number, name, phone, chance.choice(words["sexes"]), age, chance.choice(words["branches"]), day.isoformat(), note, grade])
    chance.shuffle(rows)
    for row in rows[:MISGRADED]:
        row[8] = grades[(grades.index(row[8]) + 2) % 3] if row[8] != grades[1] else grades[2]
    for place, row in enumerate(rows[MISGRADED : MISGRADED + UNGRADED]):
        row[8] = words["missing"][place % 2]
    for place, row in enumerate(rows[30 : 30 + AGELESS]):
        row[4] = words["missing"][2 + place % 2]
    (folder / "data").mkdir(exist_ok=True)
    with (folder / "data" / "notes.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([words["columns"], *rows, *rows[100 : 100 + COPIES]])
    return planted


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
