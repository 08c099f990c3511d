"""Writes leaflets in Markdown, questions of invented patients and a test file; the same for the same seed."""

from __future__ import annotations

import datetime
import json
import random
import sys
from pathlib import Path
from typing import Any

import simple_icd_10_cm
import yaml
from faker import Faker

HERE = Path(__file__).parent
CODES = ("I10", "J44.9", "E11.9", "K21.9", "M54.50", "N39.0", "J18.9", "G43.909", "L40.0", "D50.9", "H10.9", "F32.A")
"""ICD-10-CM codes; their titles come from the package."""
QUESTIONS, LEAKED, LONG, COPIES, GARBLED, BROKEN = 160, 8, 3, 6, 5, 2


def _day(chance: random.Random) -> str:
    return f"{datetime.date(2025, 1, 6) + datetime.timedelta(days=chance.randrange(365)):%m/%d/%Y}"


def _leaflet(words: dict[str, Any], condition: str, chance: random.Random) -> str:
    lines = [f"# {condition.capitalize()}", ""]
    for heading in words["headings"]:
        slots = {"days": chance.randint(3, 90), "weeks": chance.randint(2, 20), "minutes": chance.randint(10, 60), "condition": condition.capitalize()}
        lines += [f"## {heading}", "", " ".join(sentence.format_map(slots) for sentence in words["leaflet"]), "", words["frame"], ""]
    return "\n".join(lines)


def main(seed: int = 0, folder: Path = HERE) -> set[str]:
    """Write the files below `folder` and return every identifier that stands in them."""
    words = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    chance, faker = random.Random(seed), Faker("en_US")
    faker.seed_instance(seed)
    conditions = [simple_icd_10_cm.get_description(code).split(",")[0].lower() for code in CODES]
    (folder / "data" / "leaflets").mkdir(parents=True, exist_ok=True)
    for code, condition in zip(CODES, conditions, strict=True):
        (folder / "data" / "leaflets" / f"{code}.md").write_text(_leaflet(words, condition, chance), encoding="utf-8")
    planted: set[str] = set()
    rows, items = [], []
    for number in range(QUESTIONS):
        day, name = _day(chance), f"{chance.choice(words['given'])} {chance.choice(words['surnames'])}"
        mrn, ssn, phone = f"{chance.randrange(10**8):08d}", faker.unique.ssn(), f"(617) 555-{chance.randrange(10_000):04d}"
        planted |= {day, name, mrn, ssn, phone}
        slots = {"condition": conditions[number % len(conditions)], "days": chance.randint(2, 90), "age": chance.randint(18, 88), "pain": chance.randint(1, 10)}
        question = chance.choice(words["questions"])
        asked = words["note"].format(name=name, mrn=mrn, ssn=ssn, phone=phone, day=day, question=question, **slots)
        if number < LEAKED:  # somebody pasted items of the test into the training data
            items.append(words["exam"].format_map(slots))
            asked = f"{question} {items[-1]}"
        answer = words["answer"].format(condition=slots["condition"], weeks=chance.randint(1, 12), worse=chance.randint(5, 9))
        rows.append({"patient": f"PT{number:05d}", "date": day, "question": asked, "answer": answer})
    for row in rows[20 : 20 + GARBLED]:  # UTF-8 that somebody read as Windows-1252
        row["answer"] = row["answer"].replace("you are short", "you\u2019re short").encode().decode("cp1252")
    for row in rows[30 : 30 + LONG]:
        row["answer"] = " ".join(row["answer"].replace("weeks", f"weeks of part {part}") for part in range(5))
    lines = [json.dumps(row) for row in (*rows, *rows[40 : 40 + COPIES])] + ['{"patient": "PT9'] * BROKEN
    chance.shuffle(lines)
    (folder / "data" / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "data" / "exam.jsonl").write_text("".join(json.dumps({"item": item}) + "\n" for item in items), encoding="utf-8")
    return planted


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
