"""The examples run: their generators are seeded, their data has the form that their project files say, and names leave it."""

from __future__ import annotations

import shutil
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.blocks import ROOT
from metier import packs
from metier.artifacts import Artifact
from metier.evaluation.task import build_tasks
from metier.flow import run
from metier.models import Base
from metier.models.methods import METHODS
from metier.project import Project, load_project
from metier.shards import SPLITS, dataset_records
from metier.store import Store
from metier.training import train
from metier.training.settings import ReplaySettings, ValidationSettings

EXAMPLES = {"contract-clauses": {"clause": {"zh": 300, "en": 300}}, "loan-risk": {"risk": {"zh": 250, "en": 250}}}


def _write(name: str, folder: Path, seed: int = 0) -> Path:
    place = folder / name
    shutil.copytree(ROOT / "examples" / name, place, ignore=shutil.ignore_patterns("data", ".metier", "__pycache__"))
    spec = spec_from_file_location(name.replace("-", "_"), place / "make_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(seed, place)
    return place


@pytest.fixture(scope="module", params=sorted(EXAMPLES))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Project, Artifact]:
    """An example's name, its project and its dataset."""
    project = load_project(_write(request.param, tmp_path_factory.mktemp("example")))
    return request.param, project, run(project, goal="dataset").dataset


def _records(dataset: Artifact) -> list[tuple[str, Any]]:
    return [(split, record) for split in SPLITS for record in dataset_records(dataset, split)]


def test_an_example_becomes_a_dataset_with_nearly_all_its_rows(built: tuple[str, Project, Artifact]) -> None:
    name, _, dataset = built
    ((task, languages),) = EXAMPLES[name].items()
    assert set(dataset.facts["counts"]["task"]) == {task}
    for language, rows in languages.items():
        assert 0.9 * rows <= dataset.facts["counts"]["language"][language] <= rows
    assert set(dataset.facts["drops"]) <= {"exact_duplicate", "near_duplicate"}
    assert sum(entry["malformed"] for entry in dataset.facts["register"]) == 0


def test_rows_of_one_contract_or_customer_stay_in_one_split(built: tuple[str, Project, Artifact]) -> None:
    _, _, dataset = built
    places: dict[str, set[str]] = {}
    for split, record in _records(dataset):
        places.setdefault(record.subject or record.group, set()).add(split)
    assert len(places) == (150 if built[0] == "contract-clauses" else 250)
    assert {len(splits) for splits in places.values()} == {1}


def test_an_example_can_be_evaluated_in_both_languages(built: tuple[str, Project, Artifact]) -> None:
    _, project, dataset = built
    settings = project.settings
    tasks, notes = build_tasks(dataset, packs.load(settings.pack), settings.evaluation, settings.languages, project=project.root)
    asked = {item.language for task in tasks for item in task.items}
    assert asked == {"zh", "en"}
    assert all(len(task.items) >= 8 for task in tasks)
    assert not [note for note in notes if "grades" in note]


def test_no_name_or_telephone_of_the_notes_reaches_the_dataset(built: tuple[str, Project, Artifact]) -> None:
    name, project, dataset = built
    if name != "loan-risk":
        return
    phrases = yaml.safe_load((project.root / "phrases.yaml").read_text(encoding="utf-8"))
    names = {person for language in phrases.values() for person in language["names"]}
    text = "\n".join(message.content for _, record in _records(dataset) for message in record.messages)
    assert [person for person in names if person in text] == []
    assert "138" not in {text[place + 3 : place + 6] for place in range(len(text)) if text.startswith("电话：", place)}
    assert dataset.facts["identifiers"]["PERSON"] >= 450


def test_the_spans_of_contracts_are_read_from_tagged_words(tmp_path: Path) -> None:
    project = load_project(_write("contract-spans", tmp_path))
    dataset = run(project, goal="dataset").dataset
    records = [record for _, record in _records(dataset)]
    assert len(records) >= 700
    assert {span.type for record in records for span in record.spans} == {"party", "amount", "date", "duration"}
    assert all(record.text[span.start : span.end] == span.text for record in records for span in record.spans)
    assert all(record.messages == () for record in records)


@pytest.mark.parametrize("name", [*sorted(EXAMPLES), "contract-spans", "letters", "stages"])
def test_a_generator_gives_the_same_files_for_the_same_seed_only(name: str, tmp_path: Path) -> None:
    folders = [_write(name, tmp_path / str(number), seed) for number, seed in enumerate((3, 3, 4))]
    contents = [[path.read_bytes() for path in sorted((folder / "data").iterdir())] for folder in folders]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_there_is_a_project_file_for_every_method(tmp_path: Path) -> None:
    folder = _write("loan-risk", tmp_path)
    files = {path.stem: load_project(path).settings.training for path in folder.glob("*.yaml") if path.stem not in {"metier", "phrases"}}
    assert {name: training.method for name, training in files.items()} == {name: name for name in METHODS}
    first = run(load_project(folder / "lora.yaml"), goal="dataset").dataset
    assert run(load_project(folder / "prompt.yaml"), goal="dataset").dataset.digest == first.digest, "one dataset serves all"


@pytest.mark.parametrize(
    ("file", "task", "language"),
    [
        ("metier.yaml", "classification", "en"),
        ("topics.yaml", "multi-label", "en"),
        ("urgency.yaml", "regression", "en"),
        ("answers.yaml", "pair", "en"),
        ("chinese.yaml", "classification", "zh"),
    ],
)
def test_the_letters_can_be_taught_as_each_task(file: str, task: Any, language: str, tmp_path: Path, encoder: Base, store: Store) -> None:
    project = load_project(_write("letters", tmp_path) / file)
    assert project.settings.training.task == task
    dataset = run(project, goal="dataset").dataset
    records = [record for _, record in _records(dataset)]
    assert 500 < len(records) <= 600
    assert {record.language for record in records} == {language}
    settings = project.settings.training.model_copy(update={"epochs": 0.2, "validation": ValidationSettings(times=0)})
    _, trained = train(dataset, encoder, settings, workspace=store.workspace(file))
    assert trained.facts["task"] == task


def test_stages_take_each_kind_of_record_in_its_turn(tmp_path: Path, base: Base, store: Store) -> None:
    project = load_project(_write("stages", tmp_path))
    dataset = run(project, goal="dataset").dataset
    assert dataset.facts["counts"]["language"].keys() == {"zh", "en"}
    assert dataset.facts["counts"]["task"].keys() == {"rules", "questions", "safety"}
    stages = tuple(stage.model_copy(update={"epochs": 0.1}) for stage in project.settings.training.stages)
    replay = ReplaySettings(share=0.1, written=4, max_new_tokens=8)
    settings = project.settings.training.model_copy(update={"stages": stages, "replay": replay, "validation": ValidationSettings(times=1)})
    found, _ = train(dataset, base, settings, workspace=store.workspace("stages"))
    assert [stage["name"] for stage in found.facts["stages"]] == ["rules", "questions", "safety"]
    assert found.facts["unused_examples"] == 0


def test_two_projects_are_trained_together_and_each_has_its_own_adapter(tmp_path: Path, base: Base) -> None:
    folder = _write("together", tmp_path)
    datasets = {}
    for name in ("leases", "credits"):
        file = folder / name / "metier.yaml"
        text = file.read_text(encoding="utf-8").replace("pack:", f"base: {base.folder}\npack:").replace("epochs: 3", "epochs: 0.3")
        file.write_text(text, encoding="utf-8")
        datasets[name] = run(load_project(file), goal="dataset").dataset
        assert datasets[name].facts["counts"]["language"].keys() == {"zh", "en"}
        assert datasets[name].facts["records"] >= 200
    made = {name: run(load_project(folder / name), goal="adapter") for name in datasets}
    for name, outcome in made.items():
        assert outcome.run is not None
        joint = outcome.run.facts["joint"]
        assert (joint["members"], joint["trained_by"]) == (["credits", "leases"], "leases")
        assert (joint["shared_rank"], joint["own_rank"]) == (16, 8)
        assert [item["project"] for item in outcome.run.facts["companions"]] == [other for other in datasets if other != name]


def test_the_generator_of_the_two_projects_is_seeded(tmp_path: Path) -> None:
    folders = [_write("together", tmp_path / str(number), seed) for number, seed in enumerate((3, 3, 4))]
    contents = [[path.read_bytes() for path in sorted(folder.glob("*/data/*.jsonl"))] for folder in folders]
    assert len(contents[0]) == 4
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
