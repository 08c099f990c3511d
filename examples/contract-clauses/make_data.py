"""Writes the clauses of invented contracts: a GB18030 table in Chinese and JSON Lines in English, the same for the same seed."""

from __future__ import annotations

import csv
import io
import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CONTRACTS = 75
"""Contracts in each language; each has one clause of every type."""


def clauses(language: str, words: dict[str, Any], seed: int) -> list[list[str]]:
    """Return rows of contract number, text and type, in random order."""
    chance = random.Random(f"{language}-{seed}")
    rows = []
    for number in range(CONTRACTS):
        for kind, patterns in words["clauses"].items():
            slots = {"party": chance.choice(words["parties"]), "thing": chance.choice(words["things"]), "years": chance.randint(2, 30)}
            text = chance.choice(patterns).format_map(slots)
            rows.append([f"{language.upper()}-{number:04d}", text[0].upper() + text[1:], kind])
    chance.shuffle(rows)
    return rows


def main(seed: int = 0, folder: Path = HERE) -> None:
    """Write both files below `folder`."""
    phrases = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    (folder / "data").mkdir(exist_ok=True)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([phrases["zh"]["columns"], *clauses("zh", phrases["zh"], seed)])
    (folder / "data" / "clauses-zh.csv").write_bytes(table.getvalue().encode("gb18030"))
    lines = [json.dumps(dict(zip(phrases["en"]["columns"], row, strict=True))) for row in clauses("en", phrases["en"], seed)]
    (folder / "data" / "clauses-en.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
