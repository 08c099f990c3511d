"""The data-only examples: what each README says comes out of its dirty data does, and no planted identifier is left anywhere in the dataset."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from docs.blocks import ROOT
from metier.artifacts import Artifact
from metier.flow import run
from metier.prepare.proof import check_proof
from metier.project import load_project
from metier.records import Record
from metier.shards import SPLITS, dataset_records, read_drops

FOLDER = ROOT / "examples" / "data"
NAMES = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())


class Built(NamedTuple):
    """A dataset, the identifiers that were planted in its sources, and the records of each split."""

    dataset: Artifact
    planted: frozenset[str]
    splits: dict[str, list[Record]]

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the dataset."""
        return dict(self.dataset.facts)

    def notes(self) -> Counter[str]:
        """Count the records that have a note of each kind."""
        lines = pq.read_table(self.dataset.file("lineage.parquet"), columns=["transforms"]).to_pylist()
        return Counter(note for line in lines for note in {item.partition("=")[0] for item in line["transforms"]})


def _write(name: str, folder: Path, seed: int = 0) -> tuple[Path, frozenset[str]]:
    place = folder / name
    shutil.copytree(FOLDER / name, place, ignore=shutil.ignore_patterns("data", ".metier", "__pycache__"))
    spec = spec_from_file_location(f"data_{name}".replace("-", "_"), place / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return place, frozenset(module.main(seed, place))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Built]:
    """Every example with its dataset, built once."""
    found = {}
    for name in NAMES:
        place, planted = _write(name, tmp_path_factory.mktemp("data"))
        dataset = run(load_project(place), goal="dataset").dataset
        found[name] = Built(dataset, planted, {split: list(dataset_records(dataset, split)) for split in SPLITS})
    return found


def _everything(path: Path) -> str:
    return repr(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else path.read_text(encoding="utf-8")


def test_there_is_one_for_each_pack_and_language() -> None:
    assert [f"{pack}-{language}" for pack in ("finance", "law", "medical") for language in ("en", "zh")] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_planted_identifier_is_left_and_the_proof_holds(built: dict[str, Built], name: str) -> None:
    dataset, planted, _ = built[name]
    assert len(planted) >= 30
    text = "\n".join(_everything(path) for path in sorted(dataset.path.rglob("*")) if path.is_file())
    assert [value for value in sorted(planted) if value in text] == []
    assert dataset.facts["proof"]["holds"]
    assert check_proof(dataset.path) == []


DROPS = {
    "medical-zh": {"compose": {"no_template_fits": 4}, "dedup": {"exact_duplicate": 10, "near_duplicate": 8}, "sources": {"wrong_field_count": 3}},
    "finance-zh": {"dedup": {"exact_duplicate": 7}, "sources": {"missing_value": 6}},
    "finance-en": {"dedup": {"exact_duplicate": 9}, "sources": {"wrong_field_count": 4}},
    "law-zh": {"compose": {"no_template_fits": 1, "repeated_conversation": 5}, "dedup": {"exact_duplicate": 4}},
    "law-en": {"compose": {"no_template_fits": 1, "repeated_conversation": 4}, "decontaminate": {"contaminated": 8}, "dedup": {"exact_duplicate": 9}},
}
IDENTIFIERS = {
    "medical-zh": {"CN_RESIDENT_ID": 236, "PHONE_NUMBER": 236},
    "medical-en": {"DATE": 149, "MEDICAL_RECORD_NUMBER": 149, "PERSON": 149, "PHONE_NUMBER": 149, "US_SSN": 149},
    "finance-zh": {"ACCOUNT_NUMBER": 294, "PERSON": 294, "PHONE_NUMBER": 294},
    "finance-en": {"PERSON": 240, "PHONE_NUMBER": 240, "US_SSN": 240},
    "law-zh": {"CN_RESIDENT_ID": 12, "PERSON": 12, "PHONE_NUMBER": 12},
    "law-en": {"EMAIL_ADDRESS": 10, "PERSON": 20, "PHONE_NUMBER": 10},
}


@pytest.mark.parametrize("name", sorted(DROPS))
def test_what_leaves_is_what_the_readme_says(built: dict[str, Built], name: str) -> None:
    assert built[name].facts["drops_by_step"] == DROPS[name]


@pytest.mark.parametrize("name", NAMES)
def test_identifiers_are_found_as_often_as_they_were_planted(built: dict[str, Built], name: str) -> None:
    found = built[name].facts["identifiers"]
    assert {kind: found[kind] for kind in IDENTIFIERS[name]} == IDENTIFIERS[name]


def test_visits_are_repaired_coded_moved_and_varied(built: dict[str, Built]) -> None:
    visits = built["medical-zh"]
    assert visits.notes()["clean:mojibake"] >= 6
    assert visits.notes()["clean:html"] >= 5
    terms = [term for record in visits.splits["train"] for term in record.metadata.get("terms", ())]
    assert terms
    assert {term["negated"] for term in terms if term["surface"] == "心梗"} == {True}
    assert {term["code"] for term in terms if term["surface"] == "慢阻肺"} == {"J44.9"}
    assert visits.facts["augment"]["made"] >= 100
    assert all(not record.parents or record.subject for record in visits.splits["train"])


def test_leaflets_are_split_whole_and_leaked_questions_leave(built: dict[str, Built]) -> None:
    facts = built["medical-en"].facts
    gone = facts["drops_by_step"].pop("decontaminate")["contaminated"]
    assert facts["drops_by_step"] == {"dedup": {"exact_duplicate": 6}, "lengths": {"answer_too_long": 3}, "sources": {"malformed_json": 2}}
    asked = {split: [record.messages[0].content for record in records if record.messages] for split, records in built["medical-en"].splits.items()}
    quoting = {split: sum("outpatient department" in text for text in texts) for split, texts in asked.items()}
    assert quoting == {"train": 0, "validation": 0, "test": 8 - gone}
    assert facts["counts"]["task"]["text"] == 24
    assert built["medical-en"].notes()["clean:mojibake"] == 5
    assert all(record.time is None or len(record.time) == 4 for records in built["medical-en"].splits.values() for record in records)


def test_grades_are_filled_suspected_and_balanced(built: dict[str, Built]) -> None:
    facts = built["finance-zh"].facts
    (entry,) = facts["register"]
    assert entry["notes"] == {"missing_value_dropped": 6, "missing_value_filled": 20}
    assert entry["warnings"] == []
    assert 6 <= facts["labels"]["examined"][0]["suspects"] <= 16
    places = facts["mix"]["labels_after"].values()
    assert max(places) - min(places) <= 1
    left = [json.loads(drop.content) for drop in read_drops(built["finance-zh"].dataset.file("drops.parquet")) if drop.step == "sources"]
    assert [sorted(item) for item in left] == [["characters", "keyed_digest"]] * 6
    assert (built["finance-zh"].dataset.path / "labels-review.jsonl").is_file()


def test_a_mix_lifts_questions_and_replays_general_talk(built: dict[str, Built]) -> None:
    mix = built["finance-en"].facts["mix"]
    assert mix["replay"]["share_of_records"] == pytest.approx(0.2, abs=0.005)
    assert mix["groups"]["question"]["share_before"] == pytest.approx(0.143, abs=0.01)
    assert mix["groups"]["question"]["share_after"] == pytest.approx(0.29, abs=0.01)
    lengths = [sum(len(message.content) for message in record.messages) for record in built["finance-en"].splits["train"] if record.task != "replay"]
    third = len(lengths) // 3
    assert max(lengths[: third // 2]) <= min(lengths[-third // 2 :])
    folds = pq.read_table(built["finance-en"].dataset.file("lineage.parquet"), columns=["fold"])["fold"].to_pylist()
    assert set(folds) == {0, 1, 2, 3, 4}


def test_versions_of_an_article_stay_together_and_answers_that_differ_are_queued(built: dict[str, Built]) -> None:
    law = built["law-zh"]
    places: dict[str, set[str]] = {}
    for split, records in law.splits.items():
        for record in records:
            if record.text:
                places.setdefault(record.metadata["article"], set()).add(split)
    assert len(places) == 12
    assert {len(splits) for splits in places.values()} == {1}
    assert law.facts["duplicates"]["arbitrations"] == 4
    assert len(law.dataset.file("conflicts.jsonl").read_text(encoding="utf-8").splitlines()) == 4
    assert law.facts["quality"]["findings"]["facts: the best passages give another number"] == 4


def test_a_test_set_of_one_s_own_stays_whole(built: dict[str, Built]) -> None:
    splits = built["law-en"].splits
    assert len(splits["test"]) == 40
    assert {record.source.uri for record in splits["test"] if record.source} == {"data/test.jsonl"}
    asked = {record.messages[0].content for record in splits["test"]}
    assert not [record for record in (*splits["train"], *splits["validation"]) if record.messages and record.messages[0].content in asked]


@pytest.mark.parametrize("name", NAMES)
def test_a_generator_gives_the_same_files_for_the_same_seed_only(name: str, tmp_path: Path) -> None:
    contents = []
    for number, seed in enumerate((3, 3, 4)):
        folder, _ = _write(name, tmp_path / str(number), seed)
        contents.append([path.read_bytes() for path in sorted((folder / "data").rglob("*")) if path.is_file()])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
