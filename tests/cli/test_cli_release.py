"""`metier comply`, `approve`, `release`, `releases` and `trace`: what they print, what they refuse and with which exit code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.conftest import Finished, Invoke
from metier.audit.verify import verify


@pytest.fixture
def spare(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished project that a test may change."""
    folder = tmp_path / "spare"
    shutil.copytree(finished.folder, folder)
    return folder


def waiting(document: dict) -> list[str]:
    return [name for name, entry in document["decision"]["controls"].items() if entry["blocks"]]


def test_run_prints_the_decision_in_the_promised_shape(finished: Finished) -> None:
    decision = finished.document["decision"]
    assert set(decision) == {"digest", "verdict", "controls"}
    assert decision["verdict"] == "awaiting"
    assert decision["controls"]["BK-01"] == "pass"
    assert set(decision["controls"].values()) <= {"pass", "fail", "not applicable", "awaiting attestation"}
    assert finished.document["release"] is None


def test_comply_shows_every_control_and_writes_nothing_new(finished: Finished, invoke: Invoke) -> None:
    before = sorted(path.as_posix() for path in (finished.folder / ".metier" / "artifacts").rglob("*"))
    shown = invoke("comply", finished.folder)
    assert shown.code == 0
    for said in ("DG-01 *", "mapped to", "awaiting attestation", "GDPR", "verdict    awaiting", "SX-01: awaiting attestation", "metier approve --by NAME"):
        assert said in shown.out
    assert "compliant" not in shown.out
    document = invoke("comply", finished.folder, "--json").document
    assert document["decision"]["digest"] == finished.document["decision"]["digest"]
    entry = document["decision"]["controls"]["DG-01"]
    assert {"clause", "status", "measured", "threshold", "why", "critical", "blocks"} <= set(entry)
    assert sorted(path.as_posix() for path in (finished.folder / ".metier" / "artifacts").rglob("*")) == before


def test_release_is_refused_with_exit_code_1_and_names_what_is_in_the_way(finished: Finished, invoke: Invoke) -> None:
    ended = invoke("release", finished.folder)
    assert ended.code == 1
    assert "SX-01: awaiting attestation: nobody but the author has approved" in ended.err
    assert "Traceback" not in ended.err


def test_the_whole_way_from_the_decision_to_a_release_and_back(spare: Path, invoke: Invoke) -> None:
    open_ones = waiting(invoke("comply", spare, "--json").document)
    flags = [word for name in open_ones if name != "SX-01" for word in ("--control", name)]
    approved = invoke("approve", spare, "--by", "Zhang Wei", "--note", "read 40 records", *flags, "--json")
    assert approved.code == 0, approved.err
    assert approved.document["decision"]["verdict"] == "pass"
    assert approved.document["approval"]["by"] == "Zhang Wei"
    released = invoke("release", spare, "--name", "hives-v1", "--json")
    assert released.code == 0, released.err
    digest = released.document["release"]["digest"]
    assert (Path(released.document["release"]["path"]) / "release.json").is_file()
    assert "hives-v1" in invoke("releases", spare).out
    assert invoke("releases", spare, "--json").document["releases"][0]["sound"] is True
    shown = invoke("trace", digest[:12], spare)
    assert shown.code == 0
    assert "source data/hives.jsonl" in shown.out
    assert invoke("trace", "data/hives.jsonl", spare, "--json").document["forward"]["children"][0]["kind"] == "dataset"
    assert invoke("run", spare, "--json").document["decision"]["verdict"] == "pass"


def test_the_author_is_refused_with_exit_code_1(spare: Path, invoke: Invoke) -> None:
    author = invoke("comply", spare, "--json").document["decision"]["author"]
    ended = invoke("approve", spare, "--by", author.upper())
    assert ended.code == 1
    assert "cannot approve" in ended.err


def test_a_fail_makes_run_and_comply_end_with_1_and_still_print(spare: Path, invoke: Invoke) -> None:
    file = spare / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "compliance: {licences: [MIT]}\n", encoding="utf-8")
    ended = invoke("run", spare, "--json")
    assert ended.code == 1
    assert ended.document["decision"]["verdict"] == "fail"
    assert ended.document["decision"]["controls"]["DG-06"] == "fail"
    shown = invoke("comply", spare)
    assert shown.code == 1
    assert "verdict    fail" in shown.out
    assert "DG-06: fail: not among the allowed licences" in shown.out


def test_an_unknown_control_and_an_unknown_thing_are_wrong_input(spare: Path, invoke: Invoke) -> None:
    ended = invoke("approve", spare, "--by", "Zhang Wei", "--control", "DG-1")
    assert ended.code == 2
    assert "did you mean 'DG-01'?" in ended.err
    ended = invoke("trace", "nothing-like-it", spare)
    assert ended.code == 2
    assert "nothing in this project is called" in ended.err


def test_nothing_released_is_said_with_the_next_command(finished: Finished, invoke: Invoke) -> None:
    shown = invoke("releases", finished.folder)
    assert shown.code == 0
    assert "metier comply" in shown.out


def test_a_bundle_is_one_folder_that_verifies_and_a_changed_byte_is_found(spare: Path, invoke: Invoke, tmp_path: Path) -> None:
    open_ones = waiting(invoke("comply", spare, "--json").document)
    invoke("approve", spare, "--by", "Zhang Wei", *[word for name in open_ones if name != "SX-01" for word in ("--control", name)])
    assert invoke("release", spare).code == 0
    folder = tmp_path / "bundle"
    ended = invoke("comply", spare, "--bundle", folder)
    assert ended.code == 0, ended.err
    verdict = verify(folder)
    assert verdict.intact, verdict.fault
    for name in ("decision/decision.json", "evidence/controls/DG-01.json", "evaluation/summary.json", "dataset/card.md", "model-card.md", "bom.cdx.json"):
        assert (folder / name).is_file()
    manifests = len(list((folder / "manifests").iterdir()))
    assert verdict.facts["manifests"] == f"{manifests}, of which {manifests} are recorded in the entries above"
    for path in sorted(item for item in folder.rglob("*") if item.is_file()):
        data = path.read_bytes()
        path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
        assert not verify(folder).intact, path
        path.write_bytes(data)
    assert verify(folder).intact
    assert invoke("comply", spare, "--bundle", folder).code == 2, "nothing is written over"


def test_the_place_of_a_bundle_is_looked_at_before_anything_runs(project: Path, invoke: Invoke, tmp_path: Path) -> None:
    taken, under_a_file, dangling = tmp_path / "taken", tmp_path / "file" / "bundle", tmp_path / "dangling"
    taken.mkdir()
    under_a_file.parent.write_bytes(b"")
    dangling.symlink_to(tmp_path / "nowhere")
    (project / "data" / "hives.jsonl").write_text("no json", encoding="utf-8")
    for place, said in ((taken, "there is something at"), (under_a_file, "is no folder that may be written"), (dangling, "there is something at")):
        ended = invoke("comply", project, "--bundle", place)
        assert ended.code == 2
        assert said in ended.err
        assert "hives.jsonl" not in ended.err
    assert not (project / ".metier" / "artifacts").exists()


def test_what_is_made_approved_and_released_stands_in_the_log_once(spare: Path, invoke: Invoke) -> None:
    open_ones = waiting(invoke("comply", spare, "--json").document)
    size = invoke("run", spare, "--json").document["ledger"]["size"]
    assert invoke("run", spare, "--json").document["ledger"]["size"] == size, "a run that makes nothing writes nothing"
    invoke("approve", spare, "--by", "Zhang Wei", *[word for name in open_ones if name != "SX-01" for word in ("--control", name)])
    invoke("release", spare)
    assert invoke("audit", "verify", spare).code == 0
    # the approval and the release, each as an event and as an artefact, and the new decision
    assert invoke("run", spare, "--json").document["ledger"]["size"] == size + 5
