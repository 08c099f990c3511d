"""Writes questions and answers of two trades, each into its own project, in two languages; both answer in the same form."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PLACES = {"zh": ("一号楼", "二号楼", "东区", "西区"), "en": ("house one", "house two", "the east wing", "the west wing")}


def rows(words: dict[str, Any], places: tuple[str, ...], chance: random.Random) -> list[dict[str, str]]:
    """Return the questions of one trade in one language: every thing is asked for at every place, where other rules hold."""
    found = []
    for number, thing in enumerate(words["things"], 1):
        for place in places:
            rule = chance.choice(words["rules"]).format(days=chance.randint(2, 30), who=chance.choice(words["who"]))
            answer = words["answer"].format(rule=rule, number=number)
            found += [{"question": f"{place}: {question.format(thing=thing)}", "answer": answer, "place": place} for question in words["questions"]]
    chance.shuffle(found)
    return found


def main(seed: int = 0, folder: Path = HERE) -> None:
    """Write the files below the two projects in `folder`."""
    phrases = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    for project, languages in phrases.items():
        (folder / project / "data").mkdir(parents=True, exist_ok=True)
        for language, words in languages.items():
            found = rows(words, PLACES[language], random.Random(f"{project}-{language}-{seed}"))
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)
            (folder / project / "data" / f"questions-{language}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
