"""Search of a lexicon in texts: Metier's step beside flashtext and beside one regular expression of all names, in one process.

    python benchmarks/standardize.py [--texts 20000] [--names 40000]

Texts are made from a seed: sentences of 30 to 120 characters, Chinese and English, with names of the lexicon planted and some denied. The last line
is JSON: texts a second of each, what each found of the planted names, and the ratios. Peers do the search alone; ours also resolves borders and
negation and keeps codes and sections (`whole_step`), and is measured for the search alone too (`search`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import time
from collections.abc import Callable
from typing import Any

from metier.packs.spec import Term
from metier.prepare.standardize import StandardizeSettings, compile_lexicon, standardize
from metier.records import Record

_FILLER_ZH = "患者今日到诊室就医后情况平稳建议继续观察并按时复查家属表示理解"
_FILLER_EN = ["the", "person", "came", "back", "today", "and", "was", "told", "to", "go", "on", "as", "before", "and", "to", "call", "again"]


def names(count: int, rng: random.Random) -> tuple[list[str], list[str]]:
    """Return made-up Chinese and English names."""
    chinese = {"".join(chr(0x4E00 + rng.randrange(3000)) for _ in range(rng.randint(3, 8))) for _ in range(count // 2)}
    letters = "bcdfghjklmnprstvz"
    syllables = [first + vowel for first in letters for vowel in "aeiou"]
    english = {" ".join("".join(rng.choice(syllables) for _ in range(rng.randint(2, 4))) for _ in range(rng.randint(1, 3))) for _ in range(count // 2)}
    return sorted(chinese), sorted(english)


def texts(count: int, chinese: list[str], english: list[str], rng: random.Random) -> tuple[list[str], int]:
    """Return texts and the number of names planted in them."""
    made, planted = [], 0
    for number in range(count):
        pieces = []
        for _ in range(rng.randint(1, 3)):
            if number % 2:
                start = rng.randrange(len(_FILLER_ZH) - 12)
                pieces.append(rng.choice(["", "", "否认", "无"]) + rng.choice(chinese) + "，" + _FILLER_ZH[start : start + 12] + "。")
            else:
                words = " ".join(rng.choices(_FILLER_EN, k=6))
                pieces.append(rng.choice(["", "", "no ", "denies "]) + rng.choice(english) + ", " + words + ".")
            planted += 1
        made.append(" ".join(pieces))
    return made, planted


def measured(function: Callable[[str], int], given: list[str]) -> dict[str, Any]:
    """Return texts a second of processor time (the machine may be shared) and what was found."""
    for text in given[:200]:
        function(text)
    started, worked = time.perf_counter(), time.process_time()
    found = sum(function(text) for text in given)
    wall, seconds = time.perf_counter() - started, time.process_time() - worked
    return {
        "texts_per_second": round(len(given) / seconds),
        "found": found,
        "texts": len(given),
        "processor_seconds": round(seconds, 3),
        "seconds": round(wall, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--names", type=int, default=40_000)
    options = parser.parse_args()
    rng = random.Random(0)
    chinese, english = names(options.names, rng)
    given, planted = texts(options.texts, chinese, english, rng)
    started = time.perf_counter()
    terms = [Term(code=f"C{number}", system="S", preferred={"zh" if name[0] > "z" else "en": name}) for number, name in enumerate([*chinese, *english])]
    lexicon = compile_lexicon([terms])
    compiled = time.perf_counter() - started
    settings = StandardizeSettings()
    ours = {
        "search": measured(lambda text: len(lexicon.matches(text)), given),
        "whole_step": measured(lambda text: len(standardize(Record(id="x", text=text), settings, lexicon)[0].metadata.get("terms", ())), given),
        "compile_seconds": round(compiled, 2),
        "names": lexicon.size,
        "planted": planted,
        "characters_per_text": round(sum(map(len, given)) / len(given), 1),
    }
    peers: dict[str, Any] = {}
    every = sorted([*chinese, *english], key=len, reverse=True)
    union = re.compile("|".join(f"(?<![a-z]){re.escape(name)}(?![a-z])" if name.isascii() else name for name in every))
    few = given[: max(20, len(given) // 400)]
    peers["regular expression of all names"] = measured(lambda text: len(union.findall(text)), few) | {
        "planted_in_these": sum(text.count("，") + text.count(", ") for text in few)
    }
    try:
        from flashtext import KeywordProcessor
    except ImportError:
        peers["flashtext"] = {"error": "flashtext is not installed"}
    else:
        processor = KeywordProcessor()
        for name in every:
            processor.add_keyword(name)
        peers["flashtext"] = measured(lambda text: len(processor.extract_keywords(text)), given)
    ratios = {name: round(ours["whole_step"]["texts_per_second"] / peer["texts_per_second"], 2) for name, peer in peers.items() if "texts_per_second" in peer}
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "standardize", "machine": machine, "ours": ours, "peers": peers, "ratios": ratios}, ensure_ascii=False))


if __name__ == "__main__":
    main()
