from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import decided
from metier import flow, registry
from metier.errors import InputError
from metier.project import Project, load_project
from metier.registry.lineage import Node

KEY = decided.Key()


@pytest.fixture(scope="session")
def served(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, decided.Log, str]:
    """A released project and a log with two answers of the release."""
    project = decided.copy(finished, tmp_path_factory.mktemp("served") / "hives")
    flow.approve(project, by=decided.OTHER, ledger=decided.intact)
    made = flow.release(project, KEY, ledger=decided.intact)
    digests = {"adapter_digest": made.facts["adapter"], "release_digest": made.digest}
    return project, decided.Log([decided.Given(11, {"id": "chatcmpl-a1", **digests}), decided.Given(12, {"id": "chatcmpl-b2", **digests})]), made.digest


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from nodes(child)


def kinds(node: Node) -> list[str]:
    return [item.kind for item in nodes(node)]


def row_of(project: Project) -> dict[str, Any]:
    return pq.read_table(project.store.newest("dataset").file("lineage.parquet")).to_pylist()[0]


def test_an_answer_leads_to_release_adapter_run_dataset_base_sources_and_records(served: tuple[Project, decided.Log, str]) -> None:
    project, log, digest = served
    found = registry.trace(project.store, "chatcmpl-a1", find=log.find, records=3)
    assert (found.kind, found.id) == ("answer", "chatcmpl-a1")
    back = {item.kind: item for item in nodes(found.back)}
    assert found.back.facts["entry"] == 11
    assert back["release"].id == digest
    for kind in ("adapter", "run", "dataset", "evaluation", "evidence", "decision", "approval"):
        assert back[kind].id == project.store.newest(kind).digest or kind == "decision"
    assert back["base"].facts["licence"] == "cc0-1.0"
    register = project.store.newest("dataset").facts["register"][0]
    assert back["source"].facts == {"records": 200, "sha256": register["sha256"], "licence": "CC0-1.0", "basis": None, "bytes_now": "unchanged"}
    assert kinds(found.back).count("record") == 3
    assert back["record"].facts["file"] == "data/hives.jsonl"
    assert back["record"].facts["position"].startswith("line ")


def test_a_record_leads_back_to_its_line_and_forward_to_the_answers(served: tuple[Project, decided.Log, str]) -> None:
    project, log, _ = served
    row = row_of(project)
    found = registry.trace(project.store, row["record_id"][:12], find=log.find)
    (source,) = found.back.children
    assert source.id == "data/hives.jsonl"
    assert source.facts["position"] == row["source_position"]
    assert source.facts["sha256"] == row["source_digest"]
    assert source.facts["licence"] == "CC0-1.0"
    assert source.facts["bytes_now"] == "unchanged"
    onward = kinds(found.forward)
    for kind in ("dataset", "run", "adapter", "evaluation", "evidence", "decision", "approval", "release", "answers"):
        assert kind in onward
    assert next(item for item in nodes(found.forward) if item.kind == "dataset").facts["split"] == row["split"]
    assert [item.id for item in nodes(found.forward) if item.kind == "answer"] == ["chatcmpl-a1", "chatcmpl-b2"]
    assert onward.count("adapter") == onward.count("release") == 1


def test_a_source_file_leads_forward_by_name_and_by_its_digest(served: tuple[Project, decided.Log, str]) -> None:
    project, log, _ = served
    digest = project.store.newest("dataset").facts["register"][0]["sha256"]
    one, other = (registry.trace(project.store, query, find=log.find) for query in ("data/hives.jsonl", digest[:10]))
    assert one == other
    assert one.forward.children[0].facts["records"] == 200
    assert "answers" in kinds(one.forward)


@pytest.mark.parametrize("kind", ["dataset", "run", "adapter", "evaluation", "evidence", "approval", "release"])
def test_every_artefact_is_found_by_the_beginning_of_its_digest(served: tuple[Project, decided.Log, str], kind: str) -> None:
    project, log, _ = served
    digest = project.store.newest(kind).digest
    found = registry.trace(project.store, digest[:16], find=log.find)
    assert (found.kind, found.id) == (kind, digest)
    if kind != "release":
        assert "release" in kinds(found.forward)
    assert ("source" in kinds(found.back)) is True


def test_a_source_that_was_changed_since_is_said_to_be(served: tuple[Project, decided.Log, str], tmp_path: Path) -> None:
    project = decided.copy(served[0].root, tmp_path / "copy")
    (project.root / "data" / "hives.jsonl").open("a", encoding="utf-8").write("\n")
    record = row_of(project)["record_id"]
    assert registry.trace(project.store, record).back.children[0].facts["bytes_now"] == "changed since"
    shutil.rmtree(project.root / "data")
    assert registry.trace(project.store, record).back.children[0].facts["bytes_now"] == "not there any more"


def test_an_ambiguous_beginning_lists_the_candidates(served: tuple[Project, decided.Log, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = load_project(served[0].root)
    rows = pq.read_table(project.store.newest("dataset").file("lineage.parquet")).to_pylist()
    digests = [item.name for item in (project.store.root / "artifacts").glob("*/*")] + [row["record_id"] for row in rows]
    first = min(digests)
    monkeypatch.setattr("metier.registry.lineage._SHORTEST", 1)
    shared = next((item[:1] for item in digests if sum(other.startswith(item[:1]) for other in digests) > 1), first[:1])
    with pytest.raises(InputError) as raised:
        registry.trace(project.store, shared)
    assert "can be several things" in str(raised.value)
    assert "give more characters" in str(raised.value)
    assert str(raised.value).count("\n") >= 3


@pytest.mark.parametrize("query", ["", "zz", "abc", "chatcmpl-nobody", "0" * 40, "../../etc/passwd", "data/other.jsonl"])
def test_what_is_not_there_is_said(served: tuple[Project, decided.Log, str], query: str) -> None:
    with pytest.raises(InputError, match="nothing in this project is called"):
        registry.trace(served[0].store, query, find=served[1].find)


def test_an_answer_of_a_release_that_is_gone_still_names_its_digests(served: tuple[Project, decided.Log, str]) -> None:
    log = decided.Log([decided.Given(3, {"id": "chatcmpl-x", "adapter_digest": "a" * 64, "release_digest": "b" * 64})])
    found = registry.trace(served[0].store, "chatcmpl-x", find=log.find)
    assert [item.kind for item in found.back.children] == ["release", "adapter"]
    assert {item.facts["note"] for item in found.back.children} == {"not in this project's store"}
