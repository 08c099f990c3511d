"""Writes visits of invented patients as a GB18030 table, dirty on purpose, and a small lexicon; the same for the same seed."""

from __future__ import annotations

import csv
import datetime
import io
import random
import sys
from pathlib import Path

import yaml
from faker import Faker

HERE = Path(__file__).parent
PATIENTS, VISITS = 60, 4
COPIES, NEARLY, GARBLED, TAGGED, UNANSWERED, BROKEN = 10, 8, 6, 5, 4, 3


def main(seed: int = 0, folder: Path = HERE) -> set[str]:
    """Write the files below `folder` and return every identifier that stands in them."""
    words = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    chance, faker = random.Random(seed), Faker("zh_CN")
    faker.seed_instance(seed)
    planted: set[str] = set()
    rows: list[list[str]] = []
    names = [surname + given for surname in words["surnames"] for given in words["given"]]
    for number, name in enumerate(names[:PATIENTS]):
        slots = {"name": name, "id": faker.unique.ssn(), "phone": faker.unique.phone_number()}
        record = f"ZY{seed % 10}{number:06d}"
        planted |= {record, *slots.values()}
        for _ in range(VISITS):
            department = chance.choice(sorted(words["symptoms"]))
            symptom = chance.choice(words["symptoms"][department])
            told = words["complaint"].format(
                symptom=symptom,
                days=chance.randint(1, 60),
                warm=f"{chance.randint(362, 399) / 10}",
                high=chance.randint(100, 180),
                low=chance.randint(60, 99),
                history=chance.choice(words["history"]),
                cells=f"{chance.randint(40, 189) / 10}",
            )
            advice = words["advice"][department].format(department=department, symptom=symptom, weeks=chance.randint(1, 12))
            day = datetime.date(2025, 1, 6) + datetime.timedelta(days=chance.randrange(365))
            rows.append([record, day.isoformat(), words["who"].format_map(slots) + told, department, advice])
    chance.shuffle(rows)
    for row in rows[:GARBLED]:  # GB 2312 that somebody read as Latin-1
        row[2] = row[2].replace("⁹", "9").encode("gb2312").decode("latin-1")
    for row in rows[GARBLED : GARBLED + TAGGED]:
        row[2] = f"<p>{row[2]}</p><br/>&nbsp;"
    clean = rows[20:]
    copies = [list(row) for row in clean[:COPIES]]
    nearly = [[*row[:4], row[4].rstrip("\u3002") + "\uff01"] for row in clean[COPIES : COPIES + NEARLY]]
    for row in clean[-UNANSWERED:]:
        row[4] = ""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([words["columns"], *rows, *copies, *nearly, *([["?", "2025"]] * BROKEN)])
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "visits.csv").write_bytes(table.getvalue().encode("gb18030"))
    (folder / "data" / "terms.csv").write_text(words["terms"], encoding="utf-8")
    return planted


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
