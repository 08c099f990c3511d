"""Writes a table of file notes, questions on products and general questions; the same for the same seed."""

from __future__ import annotations

import datetime
import json
import random
import sys
from pathlib import Path

import yaml
from faker import Faker

HERE = Path(__file__).parent
NOTES, QUESTIONS, GENERAL = 240, 40, 60
COPIES, SHORT, TAGGED = 9, 4, 6


def main(seed: int = 0, folder: Path = HERE) -> set[str]:
    """Write the files below `folder` and return every identifier that stands in them."""
    words = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    chance, faker = random.Random(seed), Faker("en_US")
    faker.seed_instance(seed)
    planted: set[str] = set()
    rows = []
    for number in range(NOTES):
        grade = chance.choice(sorted(words["grades"]))
        person = {"name": f"{chance.choice(words['given'])} {chance.choice(words['surnames'])}", "ssn": faker.unique.ssn()}
        person["phone"] = f"(212) 555-{chance.randrange(10_000):04d}"
        planted |= set(person.values())
        note = words["note"].format(
            **person,
            payments=chance.choice(words["grades"][grade]["payments"]),
            debt=chance.choice(words["grades"][grade]["debt"]),
            share=chance.randint(5, 95),
            years=chance.randint(2, 30),
            work=chance.choice(words["work"]),
            amount=chance.randint(20, 900) * 100,
        )
        day = datetime.date(2025, 1, 6) + datetime.timedelta(days=chance.randrange(365))
        rows.append([f"CU{number:05d}", day.isoformat(), note, grade])
    for row in rows[:TAGGED]:
        row[2] = f"<div>{row[2].replace('%', '&#37;')}</div>"
    table = [words["columns"], *rows, *rows[50 : 50 + COPIES], *([["?", "2025-01-01"]] * SHORT)]
    questions = []
    for number in range(QUESTIONS):
        slots = {"product": chance.choice(words["products"]), "months": 3 + number, "fee": chance.randint(5, 90), "days": chance.randint(2, 10)}
        questions.append({"question": words["question"].format_map(slots), "answer": chance.choice(words["answers"]).format_map(slots)})
    general = [[text.format(a=hours, b=60 * hours) for text in words["general"][0]] for hours in range(2, 2 + GENERAL)]
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "notes.tsv").write_text("".join("\t".join(row) + "\n" for row in table), encoding="utf-8")
    (folder / "data" / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    talks = [{"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]} for asked, said in general]
    (folder / "data" / "general.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks), encoding="utf-8")
    return planted


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
