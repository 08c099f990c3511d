"""Writes sentences of invented contracts as tagged words, a word a line, the same for the same seed."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
SENTENCES = 900


def filled(pattern: str, words: dict[str, Any], chance: random.Random) -> Iterator[str]:
    """Yield a line for each word of a pattern; `{party}` and the like become words of that type."""
    for part in pattern.split():
        if not part.startswith("{"):
            yield f"{part}\tO"
            continue
        kind = part.strip("{}")
        slots = {name: chance.choice(values) for name, values in words["parts"].items()} | {"n": str(chance.randint(2, 28)), "m": str(chance.randint(2, 95))}
        text = chance.choice(words["types"][kind]).format_map(slots)
        yield from (f"{word}\t{'I' if place else 'B'}-{kind}" for place, word in enumerate(text.split()))


def main(seed: int = 0, folder: Path = HERE) -> None:
    """Write `data/sentences.conll` below `folder`."""
    words = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    chance = random.Random(f"spans-{seed}")
    sentences = ["\n".join(filled(chance.choice(words["patterns"]), words, chance)) for _ in range(SENTENCES)]
    (folder / "data").mkdir(exist_ok=True)
    (folder / "data" / "sentences.conll").write_text("\n\n".join(sentences) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
