"""Checks of where things come from: lineage with every hash recomputed, licences, lawful bases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metier.artifacts import Artifact
from metier.compliance.checks.case import Case, lineage_rows, some
from metier.compliance.measurement import Measurement
from metier.digest import digest_file
from metier.errors import StoreError
from metier.shards import SPLITS, dataset_records

__all__ = ["allowed", "base_licence", "licences", "lineage", "source_basis"]

_ALL = re.compile(r"\s+and\s+|\s*[;,&+]\s*", re.IGNORECASE)
_ANY = re.compile(r"\s+or\s+", re.IGNORECASE)
_OWN = frozenset({"internal", "unknown", "none", "", "n/a", "tbd", "todo", "proprietary", "other"})
_UNKNOWN = frozenset({"unknown", "", "n/a", "none", "tbd", "todo", "other", "noassertion"})


def allowed(licence: str, names: Sequence[str]) -> bool:
    """Return whether a licence is allowed: every part joined by `and` (or a comma) is, and of parts joined by `or` one is.

    Capitals and blanks do not count. An unknown licence is never allowed, even if somebody lists it.
    """
    known = {_plain(name) for name in names} - _UNKNOWN
    whole = _plain(licence)
    if whole in known:
        return True
    parts = _ALL.split(whole.replace("(", " ").replace(")", " ").strip())
    return all(any(_plain(one) in known for one in _ANY.split(part)) for part in parts)


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


def licences(case: Case) -> Measurement:
    """Compare the licence of every source file, those of companions included, with the list of allowed ones."""
    register = case.subject.sources
    bad = [entry for entry in register if not allowed(entry["licence"], case.settings.licences)]
    names = [f"{entry['uri']} ({entry['licence']})" for entry in bad]
    return Measurement(
        check="licences",
        value=(len(register) - len(bad)) / len(register) if register else None,
        n=len(register),
        unit="share of source files whose licence is allowed",
        better="higher",
        how="the licences of the project file against compliance.licences",
        faults=(f"not among the allowed licences: {some(names)}; see compliance.licences",) if bad else (),
        inputs={"dataset": case.subject.dataset.digest} | _companions(case),
        details={"licences": dict(sorted(case.subject.dataset.facts["counts"]["licence"].items()))},
    )


def _companions(case: Case) -> dict[str, str]:
    """Return the digests of the datasets of projects that the expert was trained together with, by what they are."""
    return {f"dataset of {item['project']}": item["dataset"] for item in case.subject.companions}


def base_licence(case: Case) -> Measurement:
    """Say whether the base model's licence is recorded and allowed; the project may state it where the model's folder does not."""
    base = case.subject.base
    own = case.settings.base_licence
    stated = base.licence if _plain(base.licence) not in _UNKNOWN else own or base.licence
    recorded = _plain(stated) not in _UNKNOWN
    good = recorded and allowed(stated, case.settings.licences)
    missing = f"{base.name} states no licence; write it under compliance.base_licence"
    fault = f"the licence of {base.name}, {stated!r}, is not among compliance.licences" if recorded else missing
    return Measurement(
        check="base_licence",
        value=float(good),
        n=1,
        unit="base models whose licence is recorded and allowed",
        better="higher",
        how="read from the model's card, or stated by the project",
        faults=() if good else (fault,),
        inputs={"base": base.digest},
        details={"licence": stated, "by": "model" if stated == base.licence else "project"},
    )


def source_basis(case: Case) -> Measurement:
    """Count the records of sources that state why they may be used: a basis, or else a published licence that is allowed.

    Companions' records lie in other projects: of theirs the rows of the source files are counted.
    """
    dataset, register = case.subject.dataset, case.subject.sources
    based = {entry["uri"] for entry in register if _based(entry, case.settings.licences)}
    theirs = register[len(dataset.facts["register"]) :]
    sources = [row["source_uri"] for row in lineage_rows(dataset, ("source_uri",))]
    total = len(sources) + sum(entry["rows"] for entry in theirs)
    good = sum(uri in based for uri in sources) + sum(entry["rows"] for entry in theirs if entry["uri"] in based)
    without = sorted({entry["uri"] for entry in register} - based)
    return Measurement(
        check="source_basis",
        value=good / total if total else None,
        n=total,
        unit="share of records that lead to a source with a basis",
        better="higher",
        how="the source of every record, its `basis` and `licence` in the project file; whether the basis is valid only a person can say",
        faults=(f"no basis is stated for {some(without)}; write `basis:` beside the source",) if without else (),
        inputs={"dataset": dataset.digest} | _companions(case),
        details={"bases": {entry["uri"]: entry["basis"] or entry["licence"] for entry in register[:200]}},
    )


def _based(entry: Mapping[str, Any], names: Sequence[str]) -> bool:
    return bool((entry["basis"] or "").strip()) or (_plain(entry["licence"]) not in _OWN and allowed(entry["licence"], names))


def lineage(case: Case) -> Measurement:
    """Walk from the evaluation to the bytes of the sources and compute every hash again.

    Nodes are: each artefact with each of its files, the links between them, the base model, each source file, each record.
    """
    nodes = 0
    faults: list[str] = []
    for count, fault in (*_artifacts(case), *_links(case), *_sources(case), _records(case)):
        nodes += count
        faults += [fault] if fault else []
    return Measurement(
        check="lineage",
        value=(nodes - len(faults)) / nodes,
        n=nodes,
        unit="share of nodes that are there with the right hash",
        better="higher",
        how="manifests, files, links between artefacts, base model, source files and the source of each record, all computed anew",
        faults=tuple(faults[:20]),
        inputs={item.kind: item.digest for item in case.subject.artifacts} | {"base": case.subject.base.digest} | _companions(case),
        details={
            "records": case.subject.dataset.facts["records"],
            "source_files": len(case.subject.dataset.facts["register"]),
            "not_walked": [f"the dataset {item['dataset']} lies in the project {item['project']}" for item in case.subject.companions],
        },
    )


_Node = tuple[int, str | None]


def _artifacts(case: Case) -> Iterator[_Node]:
    for item in case.subject.artifacts:
        yield 1, _manifest_fault(case, item)
        damaged = set(case.store.damaged(item))
        for name in item.files:
            yield 1, f"{item.kind}/{name} is not what its manifest says" if name in damaged else None


def _manifest_fault(case: Case, item: Artifact) -> str | None:
    try:
        return None if case.store.open(item.kind, item.digest).parents == item.parents else f"the parents of the {item.kind} are others on disk"
    except StoreError:
        return f"the manifest of the {item.kind} is missing or was changed"


def _links(case: Case) -> Iterator[_Node]:
    subject = case.subject
    dataset, run, adapter, evaluation = subject.artifacts
    teacher = run.facts.get("teacher")
    wanted = (
        ("the run", run.parents, (dataset.digest, subject.base.digest, *([teacher["digest"]] if teacher else []))),
        ("the adapter", adapter.parents, (run.digest, dataset.digest, subject.base.digest)),
        ("the evaluation", evaluation.parents, (dataset.digest, adapter.digest)),
    )
    for name, found, needed in wanted:
        yield 1, None if found == needed else f"{name} does not come from the dataset, run and base model it is shown with"
    for item in (run, adapter):
        same = item.facts["base"]["digest"] == subject.base.digest
        yield 1, None if same else f"the {item.kind} was made on another base model than {subject.base.name}"


def _sources(case: Case) -> Iterator[_Node]:
    for entry in case.subject.dataset.facts["register"]:
        path = case.root / entry["uri"]
        try:
            fault = None if digest_file(path) == entry["sha256"] else f"{entry['uri']} was changed after it was read"
        except OSError as error:
            fault = f"{entry['uri']} cannot be read again: {error.strerror or error}"
        yield 1, fault


def _records(case: Case) -> _Node:
    dataset = case.subject.dataset
    known = {(entry["uri"], entry["sha256"]) for entry in dataset.facts["register"]}
    rows = {row["record_id"]: row for row in lineage_rows(dataset, ("record_id", "source_uri", "source_digest", "split"))}
    seen: set[str] = set()
    lost = total = 0
    for split in SPLITS:
        for record in dataset_records(dataset, split):
            total += 1
            seen.add(record.id)
            row = rows.get(record.id)
            lost += row is None or (row["source_uri"], row["source_digest"]) not in known or row["split"] != split
    if lost:
        return total, f"{lost} of {total} records do not lead to a source file"
    # A mix takes some training records more than once and others not at all; otherwise each row is of one record.
    left = [row for record_id, row in rows.items() if record_id not in seen and not (row["split"] == "train" and "mix" in dataset.facts)]
    return total, f"{len(left)} rows of the lineage are of records that are not there" if left else None
