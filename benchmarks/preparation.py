"""The whole preparation over published corpora: what is found in each, what is dropped and why, how quickly.

    python benchmarks/preparation.py --data FOLDER [--work FOLDER] [--only NAME ...] [--processes N]

`preparation.yaml` says how each corpus is read. No text is printed. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from metier import packs, sources
from metier.engines import LOCAL, Processes
from metier.errors import MetierError
from metier.prepare import PrepareSettings, build
from metier.sources import SourceSettings
from metier.store import Store

SETTINGS = {"compose": {"text": "keep"}, "split": {"by": ["subject", "group"]}}


def flattened(data: Path, pattern: str, *path: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of lists inside JSON files, one level of list for each name."""
    for name in sorted(data.glob(pattern)):
        items: list[Any] = [json.loads(name.read_text(encoding="utf-8-sig"))]
        items = items[0] if isinstance(items[0], list) else items
        for key in path:
            items = [inner for item in items for inner in item.get(key, ())]
        yield from (item for item in items if isinstance(item, dict))


def sentences(data: Path, *folders: str) -> Iterator[dict[str, Any]]:
    """Yield the sentences of files in which each line is a word and its label."""
    for folder in folders:
        for path in sorted((data / folder).iterdir()):
            words: list[str] = []
            for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
                if line.strip():
                    words.append(line.split()[0])
                elif words:
                    yield {"text": " ".join(words)}
                    words = []


def described(data: Path, name: str, label: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as text: every column with its value."""
    with (data / name).open(encoding="utf-8-sig", newline="") as stream:
        for row in csv.DictReader(stream):
            yield {"label": row.pop(label), "text": "; ".join(f"{column.replace('_', ' ')}: {value}" for column, value in row.items())}


def bring(entry: dict[str, Any], data: Path, root: Path) -> list[SourceSettings]:
    """Write what has to be unpacked or flattened into the project folder, and return the settings of its sources."""
    if "unpack" in entry:
        for archive in sorted((data / entry["unpack"]).glob("*.tar.gz")):
            with tarfile.open(archive) as tar:
                tar.extractall(root / "unpacked", filter="data")
    written = {"flatten": flattened, "conll": sentences, "table": described}
    for rows in (function(data, *entry[key]) for key, function in written.items() if key in entry):
        with (root / "flat.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    found = []
    for source in entry["sources"]:
        own = source["path"] in ("flat.jsonl", "unpacked")
        path = source["path"] if own else str(data / source["path"])
        found.append(SourceSettings.model_validate({**source, "path": path}, strict=False))
    return found


def prepared(entry: dict[str, Any], arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    """Prepare one corpus and return what was found, or why it could not be."""
    root.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    engine = Processes(arguments.processes) if arguments.processes > 1 else LOCAL
    try:
        pack = packs.load(entry["pack"])
        origin = sources.read(bring(entry, arguments.data, root), root, tolerance=0.05, pack=pack)
        settings = PrepareSettings.model_validate(SETTINGS, strict=False)
        dataset = build(origin, pack, settings, entry["languages"], workspace=Store(root / ".metier").workspace("k"), engine=engine)
    except MetierError as error:
        return {"refused": str(error).splitlines()[:4], "seconds": round(time.monotonic() - began, 1)}
    facts, seconds = dataset.facts, time.monotonic() - began
    rows = sum(item["rows"] for item in facts["register"])
    return {
        "rows": rows,
        "records": facts["records"],
        "dropped": facts["drops_by_step"],
        "duplicates": {name: facts["duplicates"][name] for name in ("exact", "near", "guarded", "conflicts")},
        "identifiers": facts["identifiers"],
        "contradictory_labels": facts["labels"]["contradictions"],
        "verdicts": facts.get("quality", {}).get("verdicts"),
        "proof_holds": facts["proof"]["holds"],
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds, 1),
    }


def main() -> None:
    """Prepare one corpus after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    entries = yaml.safe_load((Path(__file__).parent / "preparation.yaml").read_text(encoding="utf-8"))
    ours = {}
    with tempfile.TemporaryDirectory() as scratch:
        for entry in entries:
            if not arguments.only or entry["name"] in arguments.only:
                ours[entry["name"]] = prepared(entry, arguments, (arguments.work or Path(scratch)) / entry["name"])
                print(entry["name"], json.dumps(ours[entry["name"]], ensure_ascii=False), flush=True)
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "preparation", "machine": machine, "ours": ours, "peers": {}, "ratios": {}}, ensure_ascii=False))


if __name__ == "__main__":
    main()
