"""What lineage costs: the share of a whole preparation that goes into writing where each record comes from and what was done to it.

    python benchmarks/lineage.py --data FOLDER

On the consultations of `medical/toyhom-im-sample`, names found by rules alone, so that the rest is as quick as it gets. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from metier import packs, sources
from metier.prepare import PrepareSettings, build, write
from metier.shards import row_writer
from metier.sources import SourceSettings
from metier.store import Store


class Timed:
    """A writer of rows that counts the seconds spent in it, from the making of the file to its end."""

    seconds = 0.0

    def __init__(self, *arguments: Any) -> None:
        self._writer = self._timed(row_writer, *arguments)

    def _timed(self, function: Any, *arguments: Any) -> Any:
        began = time.perf_counter()
        found = function(*arguments)
        Timed.seconds += time.perf_counter() - began
        return found

    def __enter__(self) -> Timed:
        self._writer.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._timed(self._writer.__exit__, *failure)

    def add(self, row: dict[str, Any]) -> None:
        """Write a row."""
        self._timed(self._writer.add, row)


def main() -> None:
    """Build once, with the lineage's writer timed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    path = next((arguments.data / "medical" / "toyhom-im-sample").glob("*.csv"))
    columns = {"department": "department", "title": "title", "question": "ask", "answer": "answer"}
    settings = PrepareSettings.model_validate({"deidentify": {"names": {"zh": "rules"}}})
    with tempfile.TemporaryDirectory() as name:
        origin = sources.read([SourceSettings(path=str(path), licence="MIT", columns=columns)], Path(name))
        write.row_writer = Timed  # type: ignore[assignment]
        began = time.perf_counter()
        dataset = build(origin, packs.load("medical"), settings, ["zh"], workspace=Store(Path(name) / ".metier").workspace("k"))
        seconds = time.perf_counter() - began
    ours = {"rows": dataset.facts["rows"], "records": dataset.facts["records"], "seconds": round(seconds, 1), "lineage_seconds": round(Timed.seconds, 2)}
    ours["share"] = round(Timed.seconds / (seconds - Timed.seconds), 4)
    machine = {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "lineage", "machine": machine, "ours": ours, "peers": {}, "ratios": {}}))


if __name__ == "__main__":
    main()
