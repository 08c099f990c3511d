"""Near-duplicate search on the Markdown or text files of a folder, in chunks of 500 characters, with planted edits.

    python benchmarks/dedup.py --data FOLDER

The last line is JSON: documents and megabytes a second for one process, end to end (fold, shingle, sign, band, verify), and how
many of the planted pairs whose exact similarity reaches the threshold were found, by similarity.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
from pathlib import Path
from typing import Any

import numpy as np

from metier.prepare.compare import fold
from metier.prepare.minhash import candidates, implementation, jaccard, shingle_sets, signatures

_SIZE, _SHINGLE, _BLOCK = 500, 5, 8192


def chunks(folder: Path) -> list[str]:
    """Return the texts of a folder cut into pieces of 500 characters."""
    texts = [
        path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.rglob("*")) if path.suffix in {".md", ".txt"} and path.name != "NOTICE.txt"
    ]
    return [text[place : place + _SIZE] for text in texts for place in range(0, len(text), _SIZE) if len(text) - place >= _SIZE // 2]


def edited(text: str, share: float, rng: random.Random) -> str:
    """Return the text with `share` of its characters replaced, in runs of 1 to 6."""
    letters, left = list(text), int(len(text) * share)
    while left > 0:
        run = min(left, rng.randint(1, 6))
        start = rng.randrange(len(letters) - run)
        letters[start : start + run] = [chr(0x4E00 + rng.randrange(3000)) for _ in range(run)]
        left -= run
    return "".join(letters)


def search(texts: list[str], threshold: float, using: str) -> tuple[set[tuple[int, int]], dict[str, float]]:
    """Return the verified pairs and the seconds that each part took."""
    seconds = dict.fromkeys(("fold", "shingle", "sign", "band", "verify"), 0.0)
    clock = time.perf_counter

    def spend(name: str, since: float) -> None:
        seconds[name] += clock() - since

    matrices, hashed = [], []
    for start in range(0, len(texts), _BLOCK):
        since = clock()
        folded = [fold(text) for text in texts[start : start + _BLOCK]]
        spend("fold", since)
        since = clock()
        hashes, offsets = shingle_sets(folded, _SHINGLE)
        hashed.append((hashes, offsets))
        spend("shingle", since)
        since = clock()
        matrices.append(signatures(hashes, offsets, using=using))
        spend("sign", since)
    since = clock()
    pairs = list(candidates(np.concatenate(matrices)))
    spend("band", since)
    since = clock()
    sets: dict[int, Any] = {}
    for number in {number for pair in pairs for number in pair}:
        hashes, offsets = hashed[number // _BLOCK]
        sets[number] = np.unique(hashes[offsets[number % _BLOCK] : offsets[number % _BLOCK + 1]])
    found = {pair for pair in pairs if jaccard(sets[pair[0]], sets[pair[1]]) >= threshold}
    spend("verify", since)
    return found, seconds


def recall(texts: list[str], found: set[tuple[int, int]], planted: list[tuple[int, int]], threshold: float) -> dict[str, Any]:
    """Return of the planted pairs at or above the threshold how many were found, for bands of similarity."""
    out: dict[str, list[int]] = {}
    for left, right in planted:
        hashes, offsets = shingle_sets([fold(texts[left]), fold(texts[right])], _SHINGLE)
        similarity = jaccard(np.unique(hashes[: offsets[1]]), np.unique(hashes[offsets[1] :]))
        if similarity >= threshold:
            for name, low in (("all", threshold), ("0.8 and more", 0.8)):
                if similarity >= low:
                    count = out.setdefault(name, [0, 0])
                    count[0] += (left, right) in found
                    count[1] += 1
    return {name: {"recall": round(hit / total, 4), "n": total} for name, (hit, total) in out.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of .md or .txt files")
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--using", choices=["rensa", "numpy"], default=implementation())
    parser.add_argument("--limit", type=int, default=None, help="take only so many chunks")
    options = parser.parse_args()
    rng = random.Random(0)
    texts = chunks(options.data)[: options.limit]
    originals = rng.sample(range(len(texts)), min(2000, len(texts) // 4))
    planted = []
    for original in originals:
        planted.append((original, len(texts)))
        texts.append(edited(texts[original], rng.choice((0.01, 0.02, 0.04, 0.06)), rng))
    size = sum(len(text.encode()) for text in texts)
    started, worked = time.perf_counter(), time.process_time()
    found, seconds = search(texts, options.threshold, options.using)
    total, processor = time.perf_counter() - started, time.process_time() - worked
    ours = {
        "implementation": options.using,
        "documents": len(texts),
        "megabytes": round(size / 1e6, 1),
        "seconds": round(total, 2),
        "processor_seconds": round(processor, 2),
        "documents_per_second": round(len(texts) / total),
        "megabytes_per_second": round(size / 1e6 / total, 1),
        "parts_seconds": {name: round(value, 2) for name, value in seconds.items()},
        "pairs": len(found),
        "threshold": options.threshold,
        "planted": recall(texts, found, planted, options.threshold),
        "precision": 1.0,
    }
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "dedup", "machine": machine, "ours": ours, "peers": {}, "ratios": {}}, ensure_ascii=False))


if __name__ == "__main__":
    main()
