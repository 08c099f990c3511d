"""How long a shared n-gram has to be: false and planted hits by length, in Chinese and English, on published corpora.

    python benchmarks/decontamination.py --data FOLDER

For each length: how many rows of unrelated corpora are flagged (false), and how many planted rows, an edited item inside other text, are found.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

from corpora import abstracts, medquad, strings, toyhom
from metier.prepare.compare import parts, searched
from metier.prepare.decontaminate import DecontaminateSettings, Reference, decontaminate
from metier.prepare.dedup import Records
from metier.records import Record

_HAN, _WORDS = (10, 13, 16, 20, 25, 30, 40, 50), (8, 10, 13, 16, 20)


def rows(items: Any, count: int) -> list[str]:
    """Return the texts of up to `count` rows, drawn by chance."""
    texts = [searched(parts(Record(id="", text=text, metadata=fields))) for text, _, fields in items]
    return random.Random(0).sample(texts, min(count, len(texts)))


def chinese(folder: Path) -> tuple[list[str], list[str]]:
    """Return questions of a law examination, and rows of consultations, which have nothing to do with them."""
    found = []
    for path in sorted((folder / "law" / "lexeval").rglob("*.json")):
        text = path.read_text(encoding="utf-8-sig")
        try:
            items = json.loads(text)
        except ValueError:
            items = [json.loads(line) for line in text.splitlines() if line.strip()]
        found += ["\n".join(strings(item)) for item in items]
    return random.Random(1).sample(found, min(3000, len(found))), rows(toyhom(folder), 6000)


def english(folder: Path) -> tuple[list[str], list[str]]:
    """Return abstracts, and questions and answers for the public."""
    return rows(abstracts(folder), 2000), rows(medquad(folder), 6000)


def planted(items: list[str], texts: list[str], unit: str) -> list[str]:
    """Return rows that hold a stretch of 120 letters (30 words) of an item, every fiftieth unit replaced, inside another text."""
    rng, out = random.Random(2), []
    for item in rng.sample(items, min(500, len(items))):
        units = item.split() if unit == "words" else list(item)
        size = 30 if unit == "words" else 120
        start = rng.randrange(max(1, len(units) - size))
        part = units[start : start + size]
        for place in range(len(part)):
            if rng.random() < 0.02:
                part[place] = "xyzzy" if unit == "words" else chr(0x9F00 + rng.randrange(90))
        other = rng.choice(texts)
        out.append(other[:200] + "\n" + (" " if unit == "words" else "").join(part) + "\n" + other[200:400])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    ours: dict[str, Any] = {}
    for language, read, lengths, unit in (("zh", chinese, _HAN, "han"), ("en", english, _WORDS, "words")):
        items, texts = read(options.data)
        hidden = planted(items, texts, unit)
        table = {}
        for length in lengths:
            settings = DecontaminateSettings.model_validate({unit: length})
            started = time.perf_counter()
            false = decontaminate(Records([Record(id=str(number), text=text) for number, text in enumerate(texts)]), [Reference("items", items)], settings)
            seconds = time.perf_counter() - started
            found = decontaminate(Records([Record(id=str(number), text=text) for number, text in enumerate(hidden)]), [Reference("items", items)], settings)
            table[length] = {
                "false": len(false.reasons),
                "of": len(texts),
                "planted": len(found.reasons),
                "planted_of": len(hidden),
                "rows_per_second": round(len(texts) / seconds),
            }
        ours[language] = {"items": len(items), "by_length": table}
    json.dump({"benchmark": "decontamination", "ours": ours, "peers": {}, "ratios": {}}, sys.stdout, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
