"""Duplicates on the Markdown and text files of a folder: speed, recall, precision, memory, with datasketch beside.

    python benchmarks/dedup.py --data FOLDER                    speed and recall on chunks of 500 characters with planted edits
    python benchmarks/dedup.py --data FOLDER --scale 100000     memory and speed on so many documents composed from the folder's text
    python benchmarks/dedup.py --data FOLDER --template 100000  so many rows of one template that differ in a number

The last line is JSON. Speed is end to end for one process: rows read twice from a JSONL file, folded, signed, banded, verified, decided, every phase's
file flushed to the disk. Recall is of the planted pairs whose exact similarity reaches the threshold; precision is of all pairs that were found,
recomputed with plain Python sets. `datasketch` runs where it is installed, data-juicer with
`--juicer-python PYTHON`, each on a part of the same documents. Published figures of text-dedup are
printed beside: it was not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from metier.prepare.compare import fold
from metier.prepare.dedup import DedupSettings, Duplicates, Records, find_duplicates
from metier.prepare.minhash import banding, implementation
from metier.records import Record

_SIZE, _SHINGLE, _PEER = 500, 5, 2000
_PUBLISHED = {"text-dedup (its README, CORE-2020, several cores)": {"precision": 0.959, "recall": 0.945, "macro_f1": 0.953, "seconds": 18.9}}


@dataclass(frozen=True, slots=True)
class Lines:
    """Rows in a JSONL file."""

    path: Path

    def __iter__(self) -> Iterator[Record]:
        with self.path.open(encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                yield Record(id=row["id"], text=row["text"])


@dataclass(frozen=True, slots=True)
class Composed:
    """Documents of five stretches of 100 characters from random places of a text; every twentieth is an edited copy of an earlier one."""

    text: str
    count: int

    def document(self, number: int) -> str:
        """Return a document by its number alone."""
        rng = random.Random(number)
        if number % 20 == 19:
            return edited(self.document(number - 1 - 20 * rng.randrange(1 + number // 40)), 0.03, rng)
        return "".join(self.text[place : place + _SIZE // 5] for place in (rng.randrange(len(self.text) - _SIZE) for _ in range(5)))

    def __iter__(self) -> Iterator[Record]:
        for number in range(self.count):
            yield Record(id=f"{number:032x}", text=self.document(number))


@dataclass(frozen=True, slots=True)
class Templated:
    """Rows of one template; each number stands in two rows, with other punctuation."""

    count: int

    def __iter__(self) -> Iterator[Record]:
        for number in range(self.count):
            text = f"本次随访记录：一般情况良好，饮食睡眠正常，血压{number // 2}毫米汞柱，继续原方案，按时复诊，不适随诊{'。！'[number % 2]}"
            yield Record(id=f"{number:032x}", text=text)


def read(folder: Path) -> list[str]:
    """Return the texts of a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in {".md", ".txt"} and path.name != "NOTICE.txt"]
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


def edited(text: str, share: float, rng: random.Random) -> str:
    """Return the text with `share` of its characters replaced, in runs of 1 to 6."""
    letters, left = list(text), int(len(text) * share)
    while left > 0:
        run = min(left, rng.randint(1, 6))
        start = rng.randrange(len(letters) - run)
        letters[start : start + run] = [chr(0x4E00 + rng.randrange(3000)) for _ in range(run)]
        left -= run
    return "".join(letters)


class Memory:
    """The peak of the anonymous memory of this process, sampled: what is not a page of a file that could be given back."""

    def __init__(self) -> None:
        self.peak, self._over = 0, threading.Event()

    def __enter__(self) -> Memory:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.is_set():
            status = Path("/proc/self/status").read_text()
            found = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("RssAnon", "VmRSS")))
            self.peak = max(self.peak, int(found["RssAnon"].split()[0]) * 1024)
            self._over.wait(0.05)


def searched(rows: Any, threshold: float, folder: Path) -> tuple[Duplicates, float, float]:
    """Return what is found, the seconds and the processor seconds."""
    started, worked = time.perf_counter(), time.process_time()
    found = find_duplicates(Records(rows), DedupSettings(threshold=threshold), folder=folder)
    return found, time.perf_counter() - started, time.process_time() - worked


def shingles(text: str) -> set[str]:
    """Return the shingles of a folded text as plain strings, with the rule of Han letters written out."""
    text, found = fold(text), set()
    for place in range(len(text)):
        size = _SHINGLE if any(0x3400 <= ord(letter) < 0xA000 or letter in "々〇" for letter in text[place : place + _SHINGLE]) else 13
        if place + size <= len(text):
            found.add(text[place : place + size])
    return found or {text}


def similarity(left: str, right: str) -> float:
    """Return the exact Jaccard similarity of two texts."""
    one, other = shingles(left), shingles(right)
    return len(one & other) / len(one | other)


def judged(texts: list[str], found: Duplicates, planted: list[tuple[int, int]], threshold: float) -> dict[str, Any]:
    """Return recall of the planted pairs and precision of a sample of 2,000 of the pairs found."""
    left, right, _ = found.similar()
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    out: dict[str, list[int]] = {"all": [0, 0], "0.8 and more": [0, 0]}
    for one, other in planted:
        value = similarity(texts[one], texts[other])
        nodes = tuple(sorted((int(found.nodes[one]), int(found.nodes[other]))))
        for name, low in (("all", threshold), ("0.8 and more", 0.8)):
            if value >= max(low, threshold):
                out[name][0] += nodes in pairs or nodes[0] == nodes[1]
                out[name][1] += 1
    first = {node: row for row, node in reversed(list(enumerate(found.nodes.tolist())))}
    sample = random.Random(1).sample(sorted(pairs), min(2000, len(pairs)))
    right_ones = sum(similarity(texts[first[one]], texts[first[other]]) >= threshold for one, other in sample)
    recall = {name: {"recall": round(hit / max(1, total), 4), "n": total} for name, (hit, total) in out.items()}
    return {"planted": recall, "precision": round(right_ones / max(1, len(sample)), 6), "precision_n": len(sample), "pairs": len(pairs)}


def datasketch(texts: list[str], threshold: float) -> dict[str, Any]:
    """Time datasketch's MinHash (128 hashes, batches) and LSH on the first documents: sign, insert, query; nothing is verified."""
    from datasketch import MinHash, MinHashLSH

    texts = texts[:_PEER]
    started = time.perf_counter()
    lsh = MinHashLSH(threshold=threshold, num_perm=128)
    signed = []
    for number, text in enumerate(texts):
        text = fold(text)
        sketch = MinHash(num_perm=128)
        sketch.update_batch({text[place : place + _SHINGLE].encode() for place in range(max(1, len(text) - _SHINGLE + 1))})
        lsh.insert(str(number), sketch)
        signed.append(sketch)
    pairs = sum(len(lsh.query(sketch)) - 1 for sketch in signed)
    seconds = time.perf_counter() - started
    return {"documents": len(texts), "seconds": round(seconds, 2), "documents_per_second": round(len(texts) / seconds), "candidates": pairs // 2}


def juicer(python: Path, texts: list[str], threshold: float) -> dict[str, Any]:
    """Time data-juicer on the first documents, in its own environment; reading and starting are not counted."""
    given = json.dumps({"texts": texts[:_PEER], "threshold": threshold})
    done = subprocess.run([str(python), str(Path(__file__).with_name("juicer_peer.py"))], input=given, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def speed(options: argparse.Namespace, work: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Measure speed, recall and precision on the folder's chunks."""
    rng = random.Random(0)
    texts = [text[place : place + _SIZE] for text in read(options.data) for place in range(0, len(text), _SIZE) if len(text) - place >= _SIZE // 2]
    texts = texts[: options.limit]
    planted = []
    for original in rng.sample(range(len(texts)), min(2000, len(texts) // 4)):
        planted.append((original, len(texts)))
        texts.append(edited(texts[original], rng.choice((0.01, 0.02, 0.04, 0.06)), rng))
    path = work / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"id": f"{number:032x}", "text": text}, ensure_ascii=False) + "\n" for number, text in enumerate(texts)), encoding="utf-8"
    )
    found, seconds, processor = searched(Lines(path), options.threshold, work / "search")
    size = sum(len(text.encode()) for text in texts)
    ours = {
        "documents": len(texts),
        "megabytes": round(size / 1e6, 1),
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "documents_per_second": round(len(texts) / seconds),
        "documents_per_processor_second": round(len(texts) / processor),
        "megabytes_per_second": round(size / 1e6 / seconds, 1),
        **judged(texts, found, planted, options.threshold),
        "counts": found.counts,
    }
    peers: dict[str, Any] = dict(_PUBLISHED)
    ratios = {}
    if find_spec("datasketch"):
        peers["datasketch"] = datasketch(texts, options.threshold)
        ratios["documents_per_second to datasketch"] = round(ours["documents_per_second"] / peers["datasketch"]["documents_per_second"], 1)
    if options.juicer_python:
        peers["data-juicer"] = juicer(options.juicer_python, texts, options.threshold)
        ratios["documents_per_second to data-juicer"] = round(ours["documents_per_second"] / peers["data-juicer"]["documents_per_second"], 1)
    return ours, peers, ratios


def scale(rows: Any, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Measure memory and speed on rows that are made while they are read."""
    started = time.perf_counter()
    count = sum(1 for _ in rows)
    making = time.perf_counter() - started
    with Memory() as memory:
        before = memory.peak
        found, seconds, processor = searched(rows, options.threshold, work / "search")
    size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    return {
        "documents": count,
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "seconds_of_making_documents_twice": round(2 * making, 1),
        "documents_per_second_without_making": round(count / max(0.001, seconds - 2 * making)),
        "peak_anonymous_bytes": memory.peak,
        "start_anonymous_bytes": before,
        "disk_bytes_per_document": round(size / count),
        "result_bytes_per_document": round(sum(array.nbytes for array in _arrays(found)) / count, 1),
        "counts": found.counts,
    }


def _arrays(found: Duplicates) -> list[Any]:
    reasons, edges = found.dropped, found.edges
    return [reasons.kind, reasons.similarity, reasons.rival, found.clusters, found.nodes, edges.pairs, edges.similarity, edges.verdict, np.zeros(0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of .md or .txt files")
    parser.add_argument("--threshold", type=float, default=0.7)
    parser.add_argument("--limit", type=int, default=None, help="take only so many chunks")
    parser.add_argument("--scale", type=int, default=None, help="compose so many documents and measure memory")
    parser.add_argument("--juicer-python", type=Path, default=None, help="interpreter of an environment with py-data-juicer")
    parser.add_argument("--template", type=int, default=None, help="search so many rows of one template")
    options = parser.parse_args()
    peers: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        if options.scale or options.template:
            rows = Composed("".join(read(options.data)), options.scale) if options.scale else Templated(options.template)
            ours = scale(rows, options, Path(name))
        else:
            ours, peers, ratios = speed(options, Path(name))
    ours |= {"implementation": implementation(), "threshold": options.threshold, "banding": banding(options.threshold)._asdict()}
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    json.dump({"benchmark": "dedup", "machine": machine, "ours": ours, "peers": peers, "ratios": ratios}, sys.stdout, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
