"""Writes house rules of an invented company as Markdown, questions on them and questions to be refused as JSON Lines, in two languages."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


def rules(words: dict[str, Any], chance: random.Random) -> list[dict[str, Any]]:
    """Return what each rule says."""
    facts = zip(words["numerals"], words["things"], strict=True)
    return [{"number": number, "thing": thing, "days": chance.randint(1, 15), "who": chance.choice(words["who"])} for number, thing in facts]


def text_of(words: dict[str, Any], found: list[dict[str, Any]]) -> str:
    """Return the rules as a document of two chapters."""
    half = len(found) // 2
    parts = [words["title"]]
    for chapter, some in zip(words["chapters"], (found[:half], found[half:]), strict=True):
        parts += [f"## {chapter}", *(words["rule"].format(**rule) for rule in some)]
    return "\n\n".join(parts) + "\n"


def main(seed: int = 0, folder: Path = HERE) -> None:
    """Write the files below `folder`."""
    phrases = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    (folder / "data").mkdir(exist_ok=True)
    for language, words in phrases.items():
        chance = random.Random(f"{language}-{seed}")
        found = rules(words, chance)
        (folder / "data" / f"rules-{language}.md").write_text(text_of(words, found), encoding="utf-8")
        asked = zip(words["questions"], words["answers"], strict=True)
        pairs = [(question.format(**rule), answer.format(**rule)) for question, answer in asked for rule in found]
        refused = sorted({unsafe.format(**rule) for unsafe in words["unsafe"] for rule in found})
        chance.shuffle(pairs)
        for name, rows in (("questions", pairs), ("safety", [(question, words["refusal"]) for question in refused])):
            lines = [json.dumps({"question": question, "answer": answer}, ensure_ascii=False) + "\n" for question, answer in rows]
            (folder / "data" / f"{name}-{language}.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
