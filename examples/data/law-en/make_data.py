"""Writes invented contracts in Markdown, their clauses with types, and a test set; the same for the same seed."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
CONTRACTS, TESTS, LEAKED, COPIES, TYPELESS = 40, 10, 6, 5, 3
"""Contracts to learn from and to test with, and test clauses that also stand among those to learn from."""


def main(seed: int = 0, folder: Path = HERE) -> set[str]:
    """Write the files below `folder` and return every identifier that stands in them."""
    words = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    chance = random.Random(seed)
    planted: set[str] = set()
    rows: dict[str, list[dict[str, str]]] = {"clauses": [], "test": []}
    (folder / "data" / "contracts").mkdir(parents=True, exist_ok=True)
    for number in range(CONTRACTS + TESTS):
        names = [f"{chance.choice(words['given'])} {surname}" for surname in chance.sample(words["surnames"], 2)]
        person = {"seller": names[0], "buyer": names[1], "mail": f"{names[0].split()[1].lower()}{number}@mail.test"}
        person["phone"] = f"020 7946 {chance.randrange(10_000):04d}"
        slots = {"trades": chance.choice(words["trades"]), "lot": 100 + number}
        lines = [f"# Contract {100 + number}", "", words["parties"].format(**person, **slots), ""]
        for place, (kind, patterns) in enumerate(words["clauses"].items()):
            text = chance.choice(patterns).format(**slots, years=chance.randint(2, 30))
            lines += [f"Section {place + 1}. {text}", ""]
            rows["test" if number >= CONTRACTS else "clauses"].append({"contract": f"C{100 + number}", "clause": text, "type": kind})
        if number < CONTRACTS // 4:  # a quarter of the contracts is there as a document, too
            planted |= set(person.values())
            (folder / "data" / "contracts" / f"{100 + number}.md").write_text("\n".join(lines), encoding="utf-8")
    leaked = [{**row, "contract": f"X{place}"} for place, row in enumerate(rows["test"][:LEAKED])]
    typeless = [{**row, "clause": "An annex.", "type": ""} for row in rows["clauses"][:TYPELESS]]
    rows["clauses"] += [*leaked, *rows["clauses"][60 : 60 + COPIES], *typeless]
    chance.shuffle(rows["clauses"])
    for name, found in rows.items():
        (folder / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return planted


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
