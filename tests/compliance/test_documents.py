"""Evidence, decision and the documents of an expert: what they hold, that they are valid, and what they do not hold."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import decided
from metier import compliance, flow
from metier.compliance.attestations import encoded
from metier.compliance.decision import decided as gate_on
from metier.errors import ConfigError, StoreError
from metier.packs import load
from metier.project import Project, load_project
from metier.shards import dataset_records


def dossier(project: Project) -> compliance.Dossier:
    return flow.dossier(project, ledger=decided.intact)


@pytest.fixture
def files(project: Project) -> dict[str, bytes]:
    return compliance.payload(dossier(project), decided.Key())


def test_each_control_has_a_file_that_says_what_was_measured_how_and_from_what(project: Project) -> None:
    evidence = project.store.newest("evidence")
    rules = {rule.id: rule for rule in compliance.rules(load("example"), project.settings.compliance)}
    assert set(evidence.files) == {f"controls/{name}.json" for name in rules}
    for name, rule in rules.items():
        document = json.loads(evidence.file(f"controls/{name}.json").read_bytes())
        assert (document["control"], document["clause"], document["threshold"]) == (name, rule.clause, rule.threshold)
        if rule.check != "separate_approval":
            assert {"measured", "interval", "n", "unit", "how", "inputs", "faults", "undecided"} <= set(document)
            assert document["inputs"]
    scan = json.loads(evidence.file("controls/DG-01.json").read_bytes())
    assert scan["interval"]["confidence"] == 0.95
    assert scan["n"] == project.store.newest("dataset").facts["counts"]["split"]["train"]


def test_a_second_run_measures_nothing_again_and_evidence_outlives_the_log_s_growth(project: Project) -> None:
    before = project.store.newest("evidence").digest
    outcome = flow.run(project, ledger=lambda: compliance.LedgerFacts(99, "11" * 32, intact=True))
    assert outcome.evidence.digest == before
    assert len(list((project.store.root / "artifacts" / "evidence").iterdir())) == 1
    broken = flow.run(project, ledger=lambda: compliance.LedgerFacts(99, "11" * 32, intact=False, fault="entry 3 was changed"))
    assert broken.evidence.digest != before
    assert broken.decision.facts["verdict"] == "fail"


def test_the_decision_replays_from_the_stored_evidence(project: Project) -> None:
    decision, evidence = project.store.newest("decision"), project.store.newest("evidence")
    rules = compliance.rules(load("example"), project.settings.compliance)
    again = gate_on(evidence, (), rules, project.store).as_facts()
    assert again == {name: decision.facts[name] for name in again}
    assert json.loads(decision.file("decision.json").read_bytes())["verdict"] == again["verdict"] == "awaiting"


def test_evidence_that_was_changed_on_disk_decides_nothing(project: Project) -> None:
    evidence = project.store.newest("evidence")
    path = evidence.file("controls/DG-01.json")
    path.write_text(path.read_text(encoding="utf-8").replace('"measured": 0.0', '"measured": 0.1'), encoding="utf-8")
    with pytest.raises(StoreError, match="was changed after it was collected"):
        gate_on(evidence, (), compliance.rules(load("example"), project.settings.compliance), project.store)


def test_a_threshold_of_the_project_changes_the_decision_and_is_shown(project: Project) -> None:
    file = project.root / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("{DG-01: 0.05}", "{DG-01: 0.001}"), encoding="utf-8")
    decision = flow.run(load_project(project.root), ledger=decided.intact).decision
    assert decision.facts["controls"]["DG-01"]["status"] == "awaiting attestation"
    assert "0.001" in decision.file("decision.md").read_text(encoding="utf-8")


def test_a_misspelt_control_is_said_before_anything_runs(project: Project) -> None:
    file = project.root / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("{DG-01: 0.05}", "{DG01: 0.05}"), encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'DG-01'"):
        flow.run(load_project(project.root), goal="dataset")


def test_no_document_says_that_anything_is_compliant(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        assert b"compliant" not in data.lower(), name
    assert b"mapped to" in files["decision/decision.md"]


def test_the_bill_of_materials_is_valid_cyclonedx_1_6(files: dict[str, bytes]) -> None:
    text = files["bom.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    kinds = [component["type"] for component in bill["components"]]
    assert kinds.count("machine-learning-model") == 1
    assert kinds.count("data") == 2
    metrics = bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {"type", "value", "slice", "confidenceInterval"} <= set(metrics[0])
    references = {component["bom-ref"] for component in [bill["metadata"]["component"], *bill["components"]]}
    assert {name for entry in bill["dependencies"] for name in (entry["ref"], *entry["dependsOn"])} <= references


def statements(lines: bytes, pem: bytes) -> list[dict[str, Any]]:
    found = []
    for line in lines.splitlines():
        envelope = json.loads(line)
        payload = base64.b64decode(envelope["payload"])
        load_pem_public_key(pem).verify(base64.b64decode(envelope["signatures"][0]["sig"]), encoded(payload))
        found.append(json.loads(payload))
    return found


def test_the_in_toto_statements_are_signed_and_name_adapter_sources_and_every_control(project: Project) -> None:
    key, of = decided.Key(), dossier(project)
    provenance, decision = statements(compliance.payload(of, key)["attestations.intoto.jsonl"], key.public_pem)
    weights = {item["name"]: item["digest"]["sha256"] for item in provenance["subject"]}
    assert weights["adapter_model.safetensors"] == of.subject.adapter.files["adapter_model.safetensors"]["sha256"]
    assert (provenance["_type"], provenance["predicateType"]) == ("https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1")
    used = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"uri": "data/hives.jsonl", "digest": {"sha256": of.subject.dataset.facts["register"][0]["sha256"]}} in used
    assert set(decision["predicate"]["controls"]) == set(of.decision.facts["controls"])
    assert encoded(b"{}") == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"


def test_a_bundle_holds_no_text_of_records_nor_answers_unless_asked(project: Project, files: dict[str, bytes]) -> None:
    of = dossier(project)
    texts = {
        message.content
        for split in ("train", "test")
        for record in dataset_records(of.subject.dataset, split)
        for message in record.messages
        if len(message.content) > 12
    }
    rows = [
        json.loads(line)
        for name in of.subject.evaluation.files
        if name.startswith("samples/")
        for line in of.subject.evaluation.file(name).open(encoding="utf-8")
    ]
    texts |= {row[side]["text"] for row in rows for side in ("base", "tuned") if len(row[side]["text"]) > 8}
    texts |= {of.subject.evaluation.facts["question"]["text"], of.subject.evaluation.facts["question"]["tuned"]}
    everything = b"".join(files.values()).decode()
    assert len(texts) > 100
    assert [text for text in texts if text and (text in everything or json.dumps(text)[1:-1] in everything)] == []
    assert len(files["evaluation/items.jsonl"].splitlines()) == len(rows)
    whole = compliance.payload(of, decided.Key(), with_items=True)
    added = {name for name in whole if name not in files}
    assert added == {"manifests/evaluation.json", *(f"evaluation/{name}" for name in of.subject.evaluation.files if name.startswith("samples/"))}


def test_the_model_card_has_figures_with_intervals_licence_and_limits(files: dict[str, bytes]) -> None:
    card = files["model-card.md"].decode()
    for heading in ("Intended use", "Data", "Training", "Results", "Decision", "Limits"):
        assert f"\n## {heading}\n" in card
    assert "| licence of the base model | cc0-1.0 |" in card
    assert "Follow the label and your inspector." in card
    assert " to " in next(line for line in card.splitlines() if line.startswith("| season | acc |"))


def test_the_same_dossier_and_key_give_the_same_bytes(project: Project) -> None:
    key = decided.Key()
    assert compliance.payload(dossier(project), key) == compliance.payload(dossier(project), key)


def test_the_files_of_a_bundle_have_plain_names(files: dict[str, bytes]) -> None:
    assert all(not Path(name).is_absolute() and ".." not in Path(name).parts for name in files)


def test_a_teacher_and_what_was_promised_to_persons_stand_in_card_and_statement(project: Project) -> None:
    plain = dossier(project)
    assert "no bound on what one person's records can change" in compliance.payload(plain, decided.Key())["model-card.md"].decode()
    run = plain.subject.run
    told = {
        "teacher": {"name": "large", "digest": "ab" * 32, "licence": "apache-2.0"},
        "privacy": {"epsilon": 3.0, "delta": 1e-5, "unit": "subject", "covers": "the adapter"},
    }
    changed = replace(plain, subject=replace(plain.subject, run=replace(run, facts=run.facts | told)))
    made = compliance.payload(changed, decided.Key())
    card = made["model-card.md"].decode()
    assert "large, licence apache-2.0" in card
    assert "epsilon 3.00 at delta 1e-05 for each unit (subject)" in card
    payloads = [
        base64.b64decode(json.loads(line)["payload"]) for name, text in made.items() if "intoto" in name or "statement" in name for line in text.splitlines()
    ]
    assert any(b'"name":"teacher"' in payload for payload in payloads)
