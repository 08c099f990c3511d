"""Writes file notes on invented customers: a JSON list in Chinese and a TSV in English, the same for the same seed."""

from __future__ import annotations

import datetime
import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CUSTOMERS, NOTES = 125, 2
"""Customers in each language, and notes on each of them."""
SHARES = ((10, 34), (35, 59), (60, 90))
"""Debt in per cent of income: little, some, much. The grade is the worse of payments and debt."""


def phone(language: str, chance: random.Random) -> str:
    """Return a telephone number in the form of its country; nobody is asked whether it is taken, and preparation replaces it."""
    return f"138{chance.randrange(10**8):08d}" if language == "zh" else f"({chance.randrange(201, 989)}) 555-{chance.randrange(10_000):04d}"


def notes(language: str, words: dict[str, Any], seed: int) -> list[list[str]]:
    """Return rows of customer, date, note and grade, in random order."""
    chance = random.Random(f"{language}-{seed}")
    rows = []
    for customer in range(CUSTOMERS):
        person = words["person"].format(name=chance.choice(words["names"]), phone=phone(language, chance))
        for _ in range(NOTES):
            paid, owed = chance.randrange(3), chance.randrange(3)
            note = words["join"].format(
                person=person,
                payments=chance.choice(words["payments"][paid]),
                debt=chance.choice(words["debt"][owed]).format(share=chance.randint(*SHARES[owed])),
                work=chance.choice(words["work"]).format(years=chance.randint(2, 30)),
            )
            date = datetime.date(2025, 1, 1) + datetime.timedelta(days=chance.randrange(365))
            rows.append([f"{language.upper()}{customer:05d}", date.isoformat(), note, words["grades"][max(paid, owed)]])
    chance.shuffle(rows)
    return rows


def main(seed: int = 0, folder: Path = HERE) -> None:
    """Write both files below `folder`."""
    phrases = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    (folder / "data").mkdir(exist_ok=True)
    chinese = [dict(zip(phrases["zh"]["columns"], row, strict=True)) for row in notes("zh", phrases["zh"], seed)]
    (folder / "data" / "notes-zh.json").write_text(json.dumps(chinese, ensure_ascii=False, indent=1), encoding="utf-8")
    english = [phrases["en"]["columns"], *notes("en", phrases["en"], seed)]
    (folder / "data" / "notes-en.tsv").write_text("".join("\t".join(row) + "\n" for row in english), encoding="utf-8")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
