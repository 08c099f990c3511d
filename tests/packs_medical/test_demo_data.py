"""The demo project: its files, their dirt, the truth of its labels, and what preparation makes of it."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import simple_icd_10_cm as icd
import yaml

from metier import packs, prepare, sources
from metier.errors import MissingExtra
from metier.privacy import VALIDATORS, detect, rules_of
from metier.project import Project, load_project
from metier.shards import dataset_records, read_drops
from metier.store import Store
from metier_medical.demo import write_project
from metier_medical.demo.catalogue import departments, doses, package, read_data, symptom_names
from metier_medical.demo.terms import CodedTerm, terms
from metier_medical.demo.visits import LEVELS, visits

LANGUAGES = ("zh", "en")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo at its full size."""
    folder = tmp_path_factory.mktemp("demo") / "project"
    write_project(folder)
    return folder


@pytest.fixture(scope="module")
def project(folder: Path) -> Project:
    return load_project(folder)


def rows_of(folder: Path, name: str) -> list[dict[str, str]]:
    """The whole rows of a source file, as its users would read them."""
    path = folder / "data" / name
    if path.suffix == ".jsonl":
        found = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found
    text = path.read_text(encoding="gb18030" if path.suffix == ".csv" else "utf-8")
    return [row for row in csv.DictReader(text.splitlines(), delimiter="\t" if path.suffix == ".tsv" else ",") if None not in row.values()]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_ones(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        write_project(tmp_path / name, seed=seed, scale=0.05)
    files = sorted(path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
        assert ((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()) == (file == "metier.yaml")


def test_the_scale_multiplies_the_rows_and_has_to_be_above_zero(tmp_path: Path) -> None:
    write_project(tmp_path, scale=0.1)
    assert 46 <= len((tmp_path / "data" / "visits-en.jsonl").read_text().splitlines()) <= 55
    with pytest.raises(ValueError, match="above 0"):
        write_project(tmp_path / "nothing", scale=0)


def test_the_project_file_is_valid_and_every_source_and_template_is_there(project: Project) -> None:
    names = {template.name for template in packs.load("medical").templates}
    assert project.settings.languages == LANGUAGES
    for source in project.settings.sources:
        assert (project.root / source.path).is_file()
        assert set(source.templates) <= names
        assert source.subject or source.group
    assert {Path(source.path).suffix for source in project.settings.sources} == {".csv", ".jsonl", ".tsv"}
    assert project.settings.evaluation.question


def test_the_chinese_table_is_in_the_old_encoding_and_the_other_files_are_utf8(folder: Path) -> None:
    for path in (folder / "data").iterdir():
        if path.name == "visits-zh.csv":
            with pytest.raises(UnicodeDecodeError):
                path.read_text(encoding="utf-8")
            assert path.read_text(encoding="gb18030").startswith("患者编号,就诊日期,主诉,科室")
        else:
            assert path.read_text(encoding="utf-8")


def test_every_answer_is_one_of_a_small_closed_set_and_departments_are_even(folder: Path) -> None:
    for name, column in (("visits-zh.csv", "科室"), ("visits-en.jsonl", "department"), ("consultations-zh.jsonl", "department")):
        counts = Counter(row[column] for row in rows_of(folder, name))
        assert len(counts) == 12
        assert max(counts.values()) < 1.6 * min(counts.values())
    levels = Counter(row["urgency"] for row in rows_of(folder, "consultations-en.jsonl"))
    assert set(levels) == {read_data("phrases.yaml")["en"]["urgency"][level] for level in LEVELS}
    assert max(levels.values()) < 1.5 * min(levels.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_identifiers_are_planted_and_every_one_is_found_by_the_rules(language: str) -> None:
    identifiers, validators = rules_of(packs.load("medical"))
    planted, missed = 0, []
    for visit in visits(language, 240, seed=11):
        spans = detect(visit.complaint, identifiers, language=language, validators=validators)
        for value in visit.planted:
            planted += 1
            if not any(value in span.text for span in spans):
                missed.append((value, visit.complaint))
    assert planted > 50
    assert missed == []


def test_resident_numbers_have_valid_check_digits() -> None:
    numbers = [value for visit in visits("zh", 300, seed=3) for value in visit.planted if len(value) == 18 and value[:17].isdigit()]
    assert len(numbers) >= 8
    assert all(VALIDATORS["resident_id"](number) for number in numbers)


@pytest.mark.parametrize("language", LANGUAGES)
def test_narratives_vary(language: str) -> None:
    told = [visit.complaint for visit in visits(language, 400, seed=5)]
    assert len(set(told)) == 400
    assert len({text[:12] for text in told}) > 200
    assert len(read_data("phrases.yaml")[language]["patterns"]) >= 25
    assert not any("{" in text or "  " in text or text.endswith(("，", ",")) for text in told)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_visit_shows_a_symptom_that_points_to_its_department(language: str) -> None:
    names = symptom_names(language)
    marks = {item.name[language]: {name for disease in item.diseases for mark in disease.marks for name in names[mark]} for item in departments()}
    for visit in visits(language, 120, seed=9):
        assert any(name.lower() in visit.complaint.lower() for name in marks[visit.department]), visit


def test_every_symptom_that_is_paraphrased_is_one_of_the_catalogue() -> None:
    assert set(read_data("symptoms.yaml")["symptoms"]) <= set(symptom_names("en"))


def test_doses_are_those_in_which_a_medicine_is_dispensed() -> None:
    assert doses("metformin") == ("500 mg", "850 mg", "1000 mg")
    chosen = [visit for visit in visits("en", 300, seed=2) if visit.doses]
    assert len(chosen) > 20
    assert all(visit.doses[0] in visit.complaint and len(set(visit.doses)) == len(visit.doses) for visit in chosen)


def test_english_terms_stand_in_the_classification_under_their_chapter() -> None:
    numbers = {item["name"]["en"]: str(item["number"]) for item in read_data("chapters.yaml")["chapters"]}
    found = terms("en", 300, seed=4)
    for item in found:
        assert icd.get_ancestors(item.category)[-1] == numbers[item.chapter]
        codes = [item.category, *icd.get_descendants(item.category)]
        assert any(item.term == icd.get_description(code) or item.term in icd.get_inclusion_term(code) for code in codes)
    assert len(Counter(item.chapter for item in found)) == 15


def test_a_term_stands_once_and_chinese_terms_are_chinese() -> None:
    for language in LANGUAGES:
        found = terms(language, 600, seed=4)
        assert len({item.term.lower() for item in found}) == len(found) == 600
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in item.term) for item in terms("zh", 600, seed=4))
    assert CodedTerm("霍乱", "传染病", "霍乱") in terms("zh", 5000, seed=4)


def test_the_chinese_list_agrees_with_the_lexicon_and_the_catalogue() -> None:
    """A name that several sources carry has one chapter in all of them."""
    names = {item["number"]: set(item["zh"]) for item in read_data("chapters.yaml")["chapters"]}
    lexicon = yaml.safe_load((packs.load("medical").folder / "lexicon.yaml").read_text(encoding="utf-8"))["lexicon"]
    for concept in lexicon:
        for text in (concept["preferred"]["zh"], *concept.get("variants", ())):
            listed = [number for number, list_ in names.items() if text in list_]
            assert listed in ([], [icd.get_ancestors(concept["code"].split(".")[0])[-1]]), text


def test_preparation_takes_the_dirt_out_and_keeps_other_doses(project: Project, tmp_path: Path) -> None:
    pack = packs.load("medical")
    origin = sources.read(project.settings.sources, project.root, tolerance=project.settings.malformed)
    dataset = prepare.build(origin, pack, project.settings.prepare, project.settings.languages, workspace=Store(tmp_path / ".metier").workspace("demo"))
    reasons = Counter(drop.reason.split(":")[0] for drop in read_drops(dataset.file("drops.parquet")))
    assert reasons["exact_duplicate"] > 50
    assert 0 < reasons["malformed_json"] + reasons["wrong_field_count"] < 30
    assert reasons["near_duplicate"] < 0.02 * 2900
    splits = {split: list(dataset_records(dataset, split)) for split in ("train", "validation", "test")}
    for language in LANGUAGES:
        tested = Counter(record.task for record in splits["test"] if record.language == language)
        assert min(tested[task] for task in ("triage", "chapter", "consultation")) >= 40
    asked = [record.messages[0].content for records in splits.values() for record in records]
    other_dose = Counter(text[: text.index(" mg")].rstrip("0123456789.") for text in asked if " mg" in text)
    assert sum(count > 1 for count in other_dose.values()) >= 5
    seen = {record.messages[0].content for record in splits["train"]}
    assert not any(record.messages[0].content in seen for record in splits["test"])


def test_without_a_package_the_message_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faker", None)
    with pytest.raises(MissingExtra, match=r"metier\[demo\]"):
        package("faker", "faker")
    with pytest.raises(MissingExtra, match="'faker'"):
        write_project(tmp_path)
