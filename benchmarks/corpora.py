"""Duplicates and conflicts in published corpora: what is known of them, and what the search finds.

    python benchmarks/corpora.py --data FOLDER [--threshold 0.8] [--only cuad ...]

FOLDER holds the corpora under `medical/`, `finance/`, `law/` and `general/`. The last line is JSON; no text is printed.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from metier.prepare.dedup import DedupSettings, Records, find_duplicates
from metier.records import Record

Item = tuple[str, str | None, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a corpus: text, label and fields, read anew each time."""

    items: Callable[[], Iterator[Item]]

    def __iter__(self) -> Iterator[Record]:
        for number, (text, label, fields) in enumerate(self.items()):
            yield Record(id=f"{number:032x}", text=text, label=label, metadata=fields)


def table(path: Path, encoding: str = "utf-8-sig") -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV or TSV file."""
    csv.field_size_limit(1 << 30)
    with path.open(encoding=encoding, errors="replace", newline="") as stream:
        yield from csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")


def toyhom(folder: Path) -> Iterator[Item]:
    for path in sorted((folder / "medical" / "toyhom-im-sample").glob("*.csv")):
        for row in table(path, "gb18030"):
            yield "", None, {"question": f"{row['title']}\n{row['ask']}", "answer": row["answer"], "department": row["department"]}


def medquad(folder: Path) -> Iterator[Item]:
    for path in sorted((folder / "medical" / "medquad").glob("*.tar.gz")):
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".xml") and (stream := archive.extractfile(member)):
                    for pair in ElementTree.parse(io.BytesIO(stream.read())).iter("QAPair"):
                        yield "", None, {"question": pair.findtext("Question") or "", "answer": pair.findtext("Answer") or ""}


def abstracts(folder: Path) -> Iterator[Item]:
    for row in table(folder / "medical" / "medical-abstracts-tc" / "medical_tc_test.csv"):
        yield row["medical_abstract"], row["condition_label"], {}


def cuad(folder: Path) -> Iterator[Item]:
    for path in sorted((folder / "law" / "cuad-clauses").rglob("*.tsv")):
        for row in table(path):
            yield row["text"], None, {}


def overruling(folder: Path) -> Iterator[Item]:
    for row in table(folder / "law" / "overruling" / "test.tsv"):
        yield row["text"], None, {}


def statutes(folder: Path) -> Iterator[Item]:
    for path in sorted((folder / "law" / "cn-statutes").rglob("*.md")):
        yield path.read_text(encoding="utf-8"), None, {}


def articles(folder: Path) -> Iterator[Item]:
    for text, _, _ in statutes(folder):
        for article in re.split(r"\n(?=第[〇零一二三四五六七八九十百千]+条)", text):
            if len(article) >= 20:
                yield article, None, {}


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def everything(folder: Path) -> Iterator[Item]:
    """Yield every object of every JSON, JSONL, CSV and TSV file and every text, as one text each."""
    for path in sorted(item for item in folder.rglob("*") if item.suffix in {".json", ".jsonl", ".csv", ".tsv", ".md", ".txt"} and item.name != "NOTICE.txt"):
        if path.suffix in {".md", ".txt"}:
            yield path.read_text(encoding="utf-8", errors="replace"), None, {}
        elif path.suffix in {".csv", ".tsv"}:
            for row in table(path, "gb18030" if "toyhom" in path.as_posix() else "utf-8-sig"):
                yield "\n".join(value for value in row.values() if isinstance(value, str)), None, {}
        else:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
            try:
                found = json.loads(text)
            except ValueError:
                found = [json.loads(line) for line in text.splitlines() if line.strip()]
            found = found.get("examples", found.get("data", list(found.values()))) if isinstance(found, dict) else found
            for item in found:
                yield "\n".join(strings(item)), None, {}


CORPORA: dict[str, tuple[Callable[[Path], Iterator[Item]], str]] = {
    "toyhom": (toyhom, "398 duplicates of 7,644 rows"),
    "medquad": (medquad, "48 duplicate pairs of 16,412"),
    "abstracts": (abstracts, "2,770 unique of 2,888; 113 abstracts with conflicting labels"),
    "cuad": (cuad, "6,620 unique of 18,414 rows"),
    "overruling": (overruling, "1,504 unique of 2,394"),
    "statutes": (statutes, "44 laws of 467 files in two versions"),
    "articles": (articles, "articles of the statutes, one a row"),
    "everything": (everything, "every file"),
}


def measured(folder: Path, name: str, threshold: float) -> dict[str, Any]:
    """Return what the search finds in one corpus."""
    read, known = CORPORA[name]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as work:
        found = find_duplicates(Records(Rows(lambda: read(folder))), DedupSettings(threshold=threshold), folder=Path(work))
        queue = (found.conflicts or Path()).read_text(encoding="utf-8").splitlines()
    sizes = Counter(Counter(found.clusters.tolist()).values())
    return {
        "known": known,
        "rows": len(found.clusters),
        "unique": len(found.clusters) - found.counts["exact"],
        "counts": found.counts,
        "conflicts_queued": len(queue),
        "records_in_conflict": sum(len(json.loads(line)["records"]) for line in queue),
        "largest_clusters": sorted(sizes)[-3:],
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--threshold", type=float, default=0.8)
    parser.add_argument("--only", nargs="*", choices=sorted(CORPORA), default=list(CORPORA))
    options = parser.parse_args()
    ours = {name: measured(options.data, name, options.threshold) for name in options.only}
    json.dump({"benchmark": "corpora", "threshold": options.threshold, "ours": ours, "peers": {}, "ratios": {}}, sys.stdout, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
