"""Projects that train together: the companions' datasets come first, each project takes its own, and what shaped it is never hidden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.hives import rows, write_jsonl, write_project
from metier import flow, registry
from metier.cli.main import app
from metier.compliance.bom import bill_of_materials
from metier.compliance.card import model_card
from metier.errors import BusyError, ConfigError, GateRefused
from metier.models import Base
from metier.project import load_project
from metier.testing import tiny_base
from metier.training.trainer import Trainer


def written(folder: Path, base: Base, name: str, *others: str, extra: str = "", **keys: str) -> Path:
    """Write a project of that name that names the others; its data are a language of their own."""
    write_project(folder / name, base.folder, count=80)
    language = {"chinese": 0, "english": 1}.get(name, 0)
    write_jsonl(folder / name / "data" / "hives.jsonl", rows(160, seed=len(name))[language::2])
    file = folder / name / "metier.yaml"
    text = file.read_text(encoding="utf-8").replace("project: hives", f"project: {name}")
    joint = f"joint: {{projects: [{', '.join(f'../{other}' for other in others)}], rank: 2{extra}}}" if others else ""
    text = text.replace("adaptation: {rank: 4}", f"adaptation: {{rank: {keys.get('rank', '4')}, {joint}}}")
    text = text.replace("licence: CC0-1.0", f"licence: {keys.get('licence', 'CC0-1.0')}")
    file.write_text(text, encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, base: Base) -> Path:
    """Two projects that name each other; the Chinese one has been run."""
    folder = tmp_path_factory.mktemp("together")
    written(folder, base, "chinese", "english")
    written(folder, base, "english", "chinese")
    flow.run(load_project(folder / "chinese"))
    return folder


def test_the_companions_dataset_is_made_in_its_own_store_and_the_run_names_it(both: Path) -> None:
    chinese, english = load_project(both / "chinese"), load_project(both / "english")
    outcome = flow.run(chinese)
    assert outcome.run is not None
    theirs = flow.run(english, goal="dataset").dataset
    (companion,) = outcome.run.facts["companions"]
    assert (companion["project"], companion["dataset"], companion["held_out_here"]) == ("english", theirs.digest, 0)
    assert companion["sources"][0]["licence"] == "CC0-1.0"
    assert chinese.store.newest("dataset") == outcome.dataset != theirs


def test_the_other_project_takes_its_part_and_is_evaluated_and_decided_on_as_any(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trainer, "run", lambda _: pytest.fail("it trained"))
    english = load_project(both / "english")
    outcome = flow.run(english)
    assert outcome.run is not None
    assert outcome.adapter is not None
    assert outcome.evaluation is not None
    assert outcome.decision is not None
    assert outcome.run.facts["joint"]["trained_by"] == "chinese"
    assert outcome.adapter.facts["rank"] == 6
    assert set(flow.planned(english)) == {"prepare", "training", "evaluation", "compliance"}
    assert None not in flow.planned(english).values()
    assert flow.newest(english, "adapter") == (outcome.adapter, True)
    assert flow.open_expert(english, outcome.adapter)


def test_evidence_card_bill_and_lineage_say_whose_data_it_was(both: Path) -> None:
    chinese = load_project(both / "chinese")
    outcome = flow.run(chinese)
    assert outcome.evidence is not None
    assert outcome.adapter is not None
    found = {document["check"]: document for path in (outcome.evidence.path / "controls").glob("*.json") if (document := json.loads(path.read_bytes()))}
    assert found["licences"]["n"] == 2
    assert "english" in found["identifier_scan"]["undecided"]
    assert found["lineage"]["measured"] == 1.0
    assert "english" in found["lineage"]["details"]["not_walked"][0]
    dossier = flow.dossier(chinese)
    assert "| english | data/hives.jsonl |" in model_card(dossier)
    assert [part["name"] for part in bill_of_materials(dossier)["components"] if part["bom-ref"] == "companion-0"] == ["english dataset"]
    assert outcome.evaluation is not None
    assert "english" in outcome.evaluation.file("report.html").read_text(encoding="utf-8")
    tree = registry.trace(chinese.store, outcome.adapter.digest).back.as_facts()
    kinds = [node["kind"] for run in tree["children"] if run["kind"] == "run" for node in run["children"]]
    assert "companion" in kinds


def test_what_a_person_has_reached_is_found_in_the_projects_that_are_named(both: Path) -> None:
    flow.run(load_project(both / "english"), goal="adapter")
    chinese, english = load_project(both / "chinese"), load_project(both / "english")
    result = CliRunner().invoke(app, ["data", "impact", str(both / "english"), "--source", "data/hives.jsonl", "--json"])
    (reached,) = json.loads(result.stdout)["reached"]
    theirs = flow.planned(chinese, goal="adapter")["training"]
    assert theirs is not None
    assert reached["elsewhere"] == {"chinese": {"run": [theirs[0].digest], "adapter": [theirs[1].digest]}}
    assert reached["became"]["adapter"] == [english.store.newest("adapter").digest]
    shown = CliRunner().invoke(app, ["data", "impact", str(both / "english"), "--source", "data/hives.jsonl"]).stdout
    assert f"in chinese: adapter {theirs[1].digest[:16]}" in shown


def test_a_companions_licence_is_checked_as_ones_own(tmp_path: Path, base: Base) -> None:
    folder = written(tmp_path, base, "chinese", "english")
    written(tmp_path, base, "english", licence="secret")
    outcome = flow.run(load_project(folder))
    assert outcome.evidence is not None
    found = [json.loads(path.read_bytes()) for path in (outcome.evidence.path / "controls").glob("*.json")]
    (licences,) = [document for document in found if document["check"] == "licences"]
    assert (licences["measured"], licences["n"]) == (0.5, 2)
    assert "english: data/hives.jsonl (secret)" in licences["faults"][0]
    assert outcome.decision is not None


def test_a_held_out_question_that_a_companion_was_taught_is_a_fault(tmp_path: Path, base: Base) -> None:
    folder = written(tmp_path, base, "chinese", "english")
    other = written(tmp_path, base, "english")
    same = rows(60, seed=1)
    for place in (folder, other):
        write_jsonl(place / "data" / "hives.jsonl", same if place == folder else [*same, *rows(40, seed=2)])
    outcome = flow.run(load_project(folder))
    assert outcome.run is not None
    assert outcome.evidence is not None
    (count,) = [item["held_out_here"] for item in outcome.run.facts["companions"]]
    assert count > 0
    found = [json.loads(path.read_bytes()) for path in (outcome.evidence.path / "controls").glob("*.json")]
    (held,) = [document for document in found if document["check"] == "held_out_evaluation"]
    assert f"{count} held-out questions were trained on as records of the project english" in held["faults"]


def test_other_data_of_a_companion_trains_again(tmp_path: Path, base: Base) -> None:
    folder = written(tmp_path, base, "chinese", "english")
    other = written(tmp_path, base, "english")
    project = load_project(folder)
    first = flow.run(project, goal="adapter")
    assert flow.planned(project, goal="adapter")["training"] is not None
    write_jsonl(other / "data" / "hives.jsonl", rows(100, seed=9))
    assert flow.planned(project, goal="adapter")["prepare"] is not None
    assert flow.planned(project, goal="adapter")["training"] is None
    with pytest.raises(GateRefused, match="has changed"):
        flow.dossier(project)
    second = flow.run(project, goal="adapter")
    assert second.dataset == first.dataset
    assert second.adapter != first.adapter


def test_a_companion_at_work_is_not_disturbed_and_not_needed_once_its_dataset_is_there(tmp_path: Path, base: Base) -> None:
    project = load_project(written(tmp_path, base, "chinese", "english"))
    other = load_project(written(tmp_path, base, "english"))
    with other.store.lock(), pytest.raises(BusyError, match="english is in use"):
        flow.run(project, goal="adapter")
    flow.run(other, goal="dataset")
    with other.store.lock():
        assert flow.run(project, goal="adapter").adapter is not None


@pytest.mark.parametrize("dry", [True, False])
def test_what_does_not_fit_is_refused_naming_both_before_anything_is_made(tmp_path: Path, base: Base, dry: bool) -> None:
    folder = written(tmp_path, base, "chinese", "english")
    written(tmp_path, base, "english", rank="8")
    result = CliRunner().invoke(app, ["train", str(folder), *(["--dry-run"] if dry else [])])
    assert result.exit_code == 2 or isinstance(result.exception, ConfigError)
    said = str(result.exception) if isinstance(result.exception, ConfigError) else result.stderr
    assert "training.adaptation.rank is 8 in the project english and 4 in chinese" in said
    assert not (tmp_path / "english" / ".metier").exists()


def test_another_base_model_a_missing_project_and_itself_are_refused(tmp_path: Path, base: Base) -> None:
    project = load_project(written(tmp_path, base, "chinese", "english"))
    with pytest.raises(ConfigError, match="there is no such file"):
        flow.run(project, goal="adapter")
    written(tmp_path, tiny_base(tmp_path / "other", seed=5), "english")
    with pytest.raises(ConfigError, match=r"the project english trains .*, and chinese another base model"):
        flow.run(project, goal="adapter")
    assert not (tmp_path / "english" / ".metier").exists()
    itself = load_project(written(tmp_path / "alone", base, "chinese", "chinese"))
    with pytest.raises(ConfigError, match="two of the projects are called 'chinese'"):
        flow.run(itself, goal="adapter")
    assert flow.run(itself, goal="dataset").dataset, "a dataset needs nobody else"


def test_a_search_is_refused_with_what_to_do(tmp_path: Path, base: Base) -> None:
    folder = written(tmp_path, base, "chinese", "english")
    text = (folder / "metier.yaml").read_text(encoding="utf-8")
    (folder / "metier.yaml").write_text(text + "sweep: {search: {learning_rate: [0.001, 0.002]}}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["sweep", str(folder), "--dry-run"])
    said = str(result.exception) + result.output
    assert "search without it, then train together with what was found" in said
