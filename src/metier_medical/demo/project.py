"""Writes the example project: the project file and six source files in three formats, with the dirt that real files have."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metier_medical.demo.catalogue import DATA, read_data
from metier_medical.demo.terms import terms
from metier_medical.demo.visits import Visit, visits

__all__ = ["write_project"]

# Rows of each source at scale 1, from the time that training may take on two processor cores (see the project file).
_VISITS, _CONSULTATIONS, _TERMS = 460, 300, 620
# Shares of the rows of a source that are there twice, and that are cut off as by a broken export.
_TWICE, _BROKEN = 0.03, 0.004
# Share of the visits with a medicine that come again with another dose: near-duplicates that must not be taken for one.
_OTHER_DOSE = 0.3

Row = Mapping[str, str]


def write_project(folder: Path, *, seed: int = 7, scale: float = 1.0) -> None:
    """Write a complete project: `metier.yaml` and its source files under `data/`.

    The same seed and scale give the same bytes. `scale` multiplies the rows of every source (their number of terms ends with
    the catalogues). Raises MissingExtra without the packages of the extra `demo`, ValueError for a scale that is not above 0.
    """
    if scale <= 0:
        raise ValueError(f"the scale has to be above 0, and it is {scale}")
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    for language in ("zh", "en"):
        chance = random.Random(f"project-{language}-{seed}")
        seen = [_visit_row(visit) for visit in _with_other_doses(visits(language, _rows(_VISITS, scale), seed=seed), chance)]
        asked = [_consultation_row(visit) for visit in visits(language, _rows(_CONSULTATIONS, scale), seed=seed, triaged=True)]
        coded = [{"category": item.category, "term": item.term, "chapter": item.chapter} for item in terms(language, _rows(_TERMS, scale), seed=seed)]
        if language == "zh":
            (data / "visits-zh.csv").write_bytes(_csv(_twice(seen, chance), read_data("columns.yaml")["visits"], chance).encode("gb18030"))
        else:
            _write(data / "visits-en.jsonl", _jsonl(_twice(seen, chance), chance))
        _write(data / f"consultations-{language}.jsonl", _jsonl(_twice(asked, chance), chance))
        _write(data / f"terms-{language}.tsv", _tsv(_twice(coded, chance)))
    _write(folder / "metier.yaml", (DATA / "project.yaml").read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))


def _rows(count: int, scale: float) -> int:
    return max(1, round(count * scale))


def _visit_row(visit: Visit) -> Row:
    return {"patient_id": visit.person, "visited_at": visit.date, "complaint": visit.complaint, "department": visit.department}


def _consultation_row(visit: Visit) -> Row:
    answer = {"department": visit.department, "urgency": visit.urgency, "advice": visit.advice}
    return {"patient_id": visit.person, "visited_at": visit.date, "complaint": visit.complaint} | answer


def _with_other_doses(given: Iterable[Visit], chance: random.Random) -> list[Visit]:
    """Add, after some visits with a medicine, the same person's next visit: the same words and another dose."""
    followed: list[Visit] = []
    for visit in given:
        followed.append(visit)
        if len(visit.doses) == 2 and chance.random() < _OTHER_DOSE:
            followed.append(replace(visit, complaint=visit.complaint.replace(*visit.doses)))
    return followed


def _twice(rows: Sequence[Row], chance: random.Random) -> list[Row]:
    """Repeat some rows further down, as exports that overlap do."""
    repeated = list(rows)
    for row in chance.sample(list(rows), round(len(rows) * _TWICE)):
        repeated.insert(chance.randrange(len(repeated) + 1), row)
    return repeated


def _broken(count: int, chance: random.Random) -> set[int]:
    """Return the places of the rows that are cut off; never the first, by which a reader knows the columns."""
    return set(chance.sample(range(1, count), round(count * _BROKEN))) if count > 1 else set()


def _jsonl(rows: Sequence[Row], chance: random.Random) -> str:
    broken = _broken(len(rows), chance)
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    return "".join(f"{line[: len(line) // 2] if place in broken else line}\n" for place, line in enumerate(lines))


def _csv(rows: Sequence[Row], columns: Mapping[str, str], chance: random.Random) -> str:
    broken = _broken(len(rows), chance)
    cells = [[row[name] for name in columns] for row in rows]
    return _table([columns.values(), *(row[:2] if place in broken else row for place, row in enumerate(cells))], ",")


def _tsv(rows: Sequence[Row]) -> str:
    return _table([rows[0].keys(), *(row.values() for row in rows)], "\t")


def _table(rows: Iterable[Iterable[str]], delimiter: str) -> str:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return stream.getvalue()
