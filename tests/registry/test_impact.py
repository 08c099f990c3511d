"""What a person or a file reached: found in every dataset, with what was made from it, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import decided
from metier import flow, prepare, registry
from metier.project import Project
from metier.shards import SPLITS, dataset_records

KEY = decided.Key()


@pytest.fixture(scope="module")
def released(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, decided.Log]:
    project = decided.copy(finished, tmp_path_factory.mktemp("impact") / "hives")
    flow.approve(project, by=decided.OTHER, ledger=decided.intact)
    made = flow.release(project, KEY, ledger=decided.intact)
    facts = {"id": "chatcmpl-a1", "adapter_digest": made.facts["adapter"], "release_digest": made.digest}
    return project, decided.Log([decided.Given(11, facts), decided.Given(12, facts)])


def keepers(project: Project) -> set[str]:
    lines = (project.root / "data" / "hives.jsonl").read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["keeper"] for line in lines}


def test_every_seeded_person_is_found_with_all_records_and_what_was_made_from_them(released: tuple[Project, decided.Log]) -> None:
    project, log = released
    dataset = project.store.newest("dataset")
    key = project.store.secret("surrogates")
    total = 0
    for keeper in keepers(project):
        pseudonym = prepare.pseudonym(key, "subject", keeper)
        (reached,) = registry.impact(project.store, subject=pseudonym, find=log.find).reached
        held = {split: sum(record.subject == pseudonym for record in dataset_records(dataset, split)) for split in SPLITS}
        assert reached.dataset == dataset.digest
        assert reached.records == {split: count for split, count in sorted(held.items()) if count}
        assert set(reached.became) == {"run", "adapter", "release"}
        assert reached.became["adapter"] == (project.store.newest("adapter").digest,)
        assert reached.answers == 1
        total += sum(held.values())
    assert total == dataset.facts["records"]


def test_a_file_reaches_everything_and_a_stranger_nothing(released: tuple[Project, decided.Log]) -> None:
    project, _ = released
    (reached,) = registry.impact(project.store, source="data/hives.jsonl").reached
    assert sum(reached.records.values()) == project.store.newest("dataset").facts["records"]
    assert reached.answers == 0
    assert registry.impact(project.store, source="data/other.jsonl").reached == ()
    assert registry.impact(project.store, subject="0" * 32).reached == ()


def test_rows_in_the_drop_ledger_are_counted_too(project: Project) -> None:
    file = project.root / "data" / "hives.jsonl"
    first = file.read_text(encoding="utf-8").splitlines()[0]
    with file.open("a", encoding="utf-8") as stream:
        stream.write(first + "\n" + "{broken\n")
    flow.run(project, goal="dataset")
    pseudonym = prepare.pseudonym(project.store.secret("surrogates"), "subject", json.loads(first)["keeper"])
    reached = registry.impact(project.store, subject=pseudonym).reached
    assert sorted(item.dropped for item in reached) == [0, 1]
    assert {item.dropped for item in registry.impact(project.store, source="data/hives.jsonl").reached} == {0, 2}


def test_exactly_one_thing_is_asked_for(project: Project) -> None:
    with pytest.raises(ValueError, match="one of the two"):
        registry.impact(project.store)
