"""Writes an invented statute in two versions, an article a paragraph, and questions on it; the same for the same seed."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml
from faker import Faker

HERE = Path(__file__).parent
AMENDED, REWORDED = 3, 4
"""Articles of the second version with another number, and with other punctuation; the other five are the same."""
CONFLICTS, COPIES, EMPTY = 4, 3, 2


def _statute(words: dict[str, Any], texts: list[str], version: str) -> str:
    lines = ["# " + words["versions"][version].format(title=words["title"]), ""]
    place = 0
    for number, (chapter, subjects) in enumerate(words["chapters"].items()):
        lines += [f"## \u7b2c{words['numerals'][number]}\u7ae0 {chapter}", ""]
        for _ in subjects:
            lines += [f"\u7b2c{words['numerals'][place]}\u6761 {texts[place]}", ""]
            place += 1
    return "\n".join(lines)


def main(seed: int = 0, folder: Path = HERE) -> set[str]:
    """Write the files below `folder` and return every identifier that stands in them."""
    words = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    chance, faker = random.Random(seed), Faker("zh_CN")
    faker.seed_instance(seed)
    subjects = [subject for found in words["chapters"].values() for subject in found]
    terms = [{"subject": name, "days": chance.randint(5, 90), "reply": chance.randint(3, 30)} for name in subjects]
    old = [words["article"].format_map(slots) for slots in terms]
    new = [words["article"].format_map({**slots, "days": slots["days"] + 100 * (place < AMENDED)}) for place, slots in enumerate(terms)]
    for place in range(AMENDED, AMENDED + REWORDED):
        new[place] = new[place].replace("\uff1b", "\u3002")
    (folder / "data" / "laws").mkdir(parents=True, exist_ok=True)
    for version, texts in (("2019", old), ("2025", new)):
        (folder / "data" / "laws" / f"{version}.md").write_text(_statute(words, texts, version), encoding="utf-8")
    planted: set[str] = set()
    rows = []
    names = [surname + given for surname in words["surnames"] for given in words["given"]]
    for place, slots in enumerate(terms):
        for kind, question in enumerate(words["questions"]):
            person = {"name": names[len(rows)], "phone": faker.unique.phone_number(), "id": faker.unique.ssn()}
            asked = question.format_map(slots)
            if kind:
                planted |= set(person.values())
                asked = words["asker"].format_map(person) + asked
            answer = words["answers"][kind].format(title=words["title"], article=words["numerals"][place], **slots)
            rows.append([asked, answer, slots["subject"]])
    first = rows[::2]
    rows += [[row[0], row[1].replace(str(terms[place]["days"]), str(terms[place]["days"] + 7)), row[2]] for place, row in enumerate(first[:CONFLICTS])]
    rows += [list(row) for row in first[-COPIES:]] + [[first[0][0] + "?", "", ""] for _ in range(EMPTY)]
    chance.shuffle(rows)
    listed = [dict(zip(words["columns"], row, strict=True)) for row in rows]
    (folder / "data" / "questions.json").write_text(json.dumps(listed, ensure_ascii=False, indent=1), encoding="utf-8")
    return planted


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
