"""Writes invented letters to an invented bank, with product, topics, urgency and an answer: JSON Lines in two languages, the same for the same seed."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
LETTERS = 600
"""Letters in each language."""


def letters(language: str, words: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Return letters; every second one comes with an answer that belongs to another topic."""
    chance = random.Random(f"{language}-{seed}")
    rows = []
    for number in range(LETTERS):
        product, urgency = chance.choice(sorted(words["products"])), chance.choice(sorted(words["urgency"]))
        topics = sorted(chance.sample(sorted(words["topics"]), chance.choice((1, 1, 2))))
        named = chance.choice(words["products"][product]).format(n=chance.randint(1000, 9999))
        said = words["and"].join(chance.choice(words["topics"][topic]).format(n=chance.randint(3, 900)) for topic in topics)
        letter = words["join"].format(product=named, topics=said, urgency=chance.choice(words["urgency"][urgency]))
        others = [topic for topic in sorted(words["topics"]) if topic not in topics]
        answered = chance.choice(topics if number % 2 else others)
        answer = words["answers"][answered].format(product=named)
        rows.append({"letter": letter, "product": product, "topics": topics, "urgency": urgency, "answer": answer, "belongs": number % 2})
    return rows


def main(seed: int = 0, folder: Path = HERE) -> None:
    """Write both files below `folder`."""
    phrases = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    (folder / "data").mkdir(exist_ok=True)
    for language, words in phrases.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in letters(language, words, seed)]
        (folder / "data" / f"letters-{language}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
