"""Each check on a real project, as it is and spoilt in one way at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

import decided
from cli.hives import write_jsonl
from metier import flow, packs
from metier.artifacts import Artifact
from metier.compliance import ComplianceSettings, LedgerFacts
from metier.compliance.checks import CHECKS, Case, Subject
from metier.compliance.checks.provenance import allowed
from metier.compliance.measurement import Measurement
from metier.models import Base, resolve
from metier.progress import SILENT
from metier.project import Project, load_project
from metier.records import Record
from metier.shards import read_records, write_records


def case(project: Project, **changes: Any) -> Case:
    store = project.store
    artifacts = [store.newest(kind) for kind in ("dataset", "run", "adapter", "evaluation")]
    subject = Subject(*artifacts, resolve(project.settings.base, root=project.root))
    settings = changes.pop("settings", ComplianceSettings())
    ledger = changes.pop("ledger", decided.LEDGER)
    return Case(replace(subject, **changes), packs.load(project.settings.pack), settings, ledger, store, SILENT)


def check(name: str, of: Case) -> Measurement:
    return CHECKS[name](of)


def changed(artifact: Artifact, **facts: Any) -> Artifact:
    return replace(artifact, facts={**artifact.facts, **facts})


def rewrite(path: Path, change: Callable[[list[Record]], list[Record]]) -> None:
    write_records(path, change(list(read_records(path))))


@pytest.mark.parametrize("name", [name for name in CHECKS if name != "retention"])
def test_a_sound_project_has_no_fault(project: Project, name: str) -> None:
    measured = check(name, case(project))
    assert measured.faults == ()
    assert measured.undecided is None
    assert measured.n > 0
    assert measured.value == {"identifier_scan": 0.0, "split_leak": 0.0, "safe_formats": 0.0}.get(name, 1.0)
    assert measured.how
    assert measured.unit
    assert json.dumps(measured.as_facts(), allow_nan=False)


# Identifiers


@pytest.fixture
def personal(base: Base, tmp_path: Path) -> Project:
    """A dataset whose rows were full of identifiers before they were prepared."""
    folder = tmp_path / "personal"
    rows = [
        {
            "prompt": f"姓名：王小明，电话13812{345600 + number}，身份证11010519491231002X，问题{number}：蜂箱{number}怎么办？",
            "completion": f"请李丽女士{number}打电话010-6234{5600 + number}，2024年3月{1 + number % 28}日，写信到 someone{number}@beehive-shop.org。",
        }
        for number in range(60)
    ]
    rows += [
        {
            "prompt": f"Name: Jane Doe, call (212) 456-{7000 + number} about hive number {number}",
            "completion": f"Dr. Mary O'Neil {number} said on March 5, 2023 that SSN 219-09-{1000 + number} is wrong",
        }
        for number in range(60)
    ]
    write_jsonl(folder / "data" / "talk.jsonl", rows)
    text = f"metier: 1\nproject: personal\npack: example\nbase: {base.folder}\nsources: [{{path: data/*.jsonl, licence: CC0-1.0}}]\n"
    (folder / "metier.yaml").write_text(text + "prepare: {dedup: {near: false}}\n", encoding="utf-8")
    return load_project(folder)


def scan(project: Project, dataset: Artifact) -> Measurement:
    subject = Subject(dataset, dataset, dataset, dataset, resolve(project.settings.base, root=project.root))
    return check("identifier_scan", Case(subject, packs.load("example"), ComplianceSettings(), None, project.store, SILENT))


def test_surrogates_that_metier_wrote_do_not_count_as_identifiers(personal: Project) -> None:
    dataset = flow.run(personal, goal="dataset").dataset
    assert sum(dataset.facts["identifiers"].values()) > 300
    measured = scan(personal, dataset)
    assert measured.details["surrogates_seen"] > 100, "names and addresses of surrogates look like real ones"
    assert measured.faults == ()
    assert (measured.value, measured.low) == (0.0, 0.0)
    assert measured.high == pytest.approx(1 - 0.05 ** (1 / measured.n))


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("请打13912345678", "PHONE_NUMBER"),
        ("身份证110105194912310062", "CN_RESIDENT_ID"),
        ("write to bee.keeper@hive-house.org", "EMAIL_ADDRESS"),
        ("Hive HV-12036", "HIVE_NUMBER"),
    ],
)
def test_a_planted_identifier_is_found_with_its_class_and_never_quoted(personal: Project, planted: str, kind: str) -> None:
    dataset = flow.run(personal, goal="dataset").dataset
    if kind == "CN_RESIDENT_ID":
        from metier.privacy.validators import resident_id_digit

        planted = f"身份证{'11010519491231006'}{resident_id_digit('11010519491231006')}"

    def plant(records: list[Record]) -> list[Record]:
        first = records[0]
        message = first.messages[0]
        return [replace(first, messages=(replace(message, content=f"{message.content} {planted}"), *first.messages[1:])), *records[1:]]

    rewrite(dataset.file("part-train-00000.parquet"), plant)
    measured = scan(personal, dataset)
    assert measured.details["identifiers"] == {kind: 1}
    assert measured.faults[0].startswith("1 identifiers are left in 1 of ")
    assert kind in measured.faults[0]
    assert planted[-8:] not in json.dumps(measured.as_facts(), ensure_ascii=False)


def test_a_short_surrogate_inside_a_real_number_excuses_nothing(personal: Project) -> None:
    from metier.compliance.checks.records import own_surrogate
    from metier.privacy import surrogate_mark
    from metier.records import Span

    key, text = b"k" * 32, "请打13890123456吧"
    span = Span(2, 13, "PHONE_NUMBER", "13890123456")
    assert not own_surrogate(span, text, [surrogate_mark(key, "90")], key)
    assert own_surrogate(span, text, [surrogate_mark(key, "13890123456")], key)
    assert own_surrogate(span, text, [surrogate_mark(key, "请打1389012345")], key), "another border of the same thing"
    assert not own_surrogate(span, text, [surrogate_mark(b"x" * 32, "13890123456")], key), "marks of another project"


def test_without_deidentification_what_is_in_the_data_is_found(personal: Project) -> None:
    file = personal.root / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("prepare: {", "prepare: {deidentify: {enabled: false}, "), encoding="utf-8")
    dataset = flow.run(load_project(personal.root), goal="dataset").dataset
    measured = scan(personal, dataset)
    assert measured.value == 1.0
    assert {"PERSON", "PHONE_NUMBER", "CN_RESIDENT_ID", "US_SSN"} <= set(measured.details["identifiers"])


# Splits


def test_a_record_that_stands_in_two_splits_is_a_leak(project: Project) -> None:
    dataset = case(project).subject.dataset
    stolen = next(read_records(dataset.file("part-test-00000.parquet")))
    rewrite(dataset.file("part-train-00000.parquet"), lambda records: [*records, stolen])
    measured = check("split_leak", case(project))
    assert measured.value >= 1
    assert any("texts stand in more than one split" in fault for fault in measured.faults)
    assert any("another split than the lineage says" in fault for fault in measured.faults)


def test_the_same_subject_in_two_splits_is_a_leak(project: Project) -> None:
    dataset = case(project).subject.dataset
    subject = next(read_records(dataset.file("part-test-00000.parquet"))).subject
    rewrite(dataset.file("part-train-00000.parquet"), lambda records: [replace(records[0], subject=subject), *records[1:]])
    assert any("subjects stand" in fault for fault in check("split_leak", case(project)).faults)


def test_without_a_held_out_split_nothing_can_be_said_of_leaks(project: Project) -> None:
    dataset = case(project).subject.dataset
    for name in list(dataset.files):
        if name.startswith(("part-test", "part-validation")):
            rewrite(dataset.file(name), lambda _: [])
    measured = check("split_leak", case(project))
    assert "no record is held out" in (measured.undecided or "")


# Lineage


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda project, subject: (project.root / "data" / "hives.jsonl").open("a").write("\n"), "data/hives.jsonl was changed after it was read"),
        (lambda project, subject: (project.root / "data" / "hives.jsonl").unlink(), "data/hives.jsonl cannot be read again"),
        (
            lambda project, subject: subject.adapter.file("adapter_config.json").open("a").write(" "),
            "adapter/adapter_config.json is not what its manifest says",
        ),
        (lambda project, subject: subject.evaluation.file("results.json").unlink(), "evaluation/results.json is not what its manifest says"),
        (lambda project, subject: (subject.run.path / "manifest.json").write_text("{}"), "the manifest of the run is missing or was changed"),
    ],
    ids=["source changed", "source gone", "adapter changed", "file gone", "manifest changed"],
)
def test_every_hash_is_computed_anew(project: Project, spoil: Callable[[Project, Subject], object], said: str) -> None:
    of = case(project)
    spoil(project, of.subject)
    measured = check("lineage", of)
    assert any(fault.startswith(said) for fault in measured.faults), measured.faults
    assert measured.value < 1


def test_an_evaluation_of_another_adapter_breaks_the_chain(project: Project) -> None:
    of = case(project)
    other = replace(of.subject.evaluation, parents=(of.subject.dataset.digest, "0" * 64))
    assert any("the evaluation does not come from" in fault for fault in check("lineage", case(project, evaluation=other)).faults)
    assert any("another adapter" in fault for fault in check("held_out_evaluation", case(project, evaluation=other)).faults)


def test_an_adapter_for_another_base_model_breaks_the_chain(project: Project) -> None:
    base = replace(case(project).subject.base, digest="0" * 64)
    assert any("another base model" in fault for fault in check("lineage", case(project, base=base)).faults)
    assert any("trained on the base model" in fault for fault in check("safe_formats", case(project, base=base)).faults)


def test_a_record_without_a_source_is_not_hidden_among_others(project: Project) -> None:
    dataset = case(project).subject.dataset
    table = pq.read_table(dataset.file("lineage.parquet"))
    pq.write_table(table.slice(1), dataset.file("lineage.parquet"))
    assert any("1 of 200 records do not lead to a source file" in fault for fault in check("lineage", case(project)).faults)


# Licences and bases


@pytest.mark.parametrize(
    ("licence", "good"),
    [
        ("MIT", True),
        ("mit ", True),
        ("Apache-2.0 and MIT", True),
        ("Apache-2.0, GPL-3.0", False),
        ("GPL-3.0 or MIT", True),
        ("(MIT AND CC0-1.0)", True),
        ("unknown", False),
        ("", False),
    ],
)
def test_a_licence_is_allowed_by_all_of_its_parts(licence: str, good: bool) -> None:
    assert allowed(licence, ["Apache-2.0", "MIT", "CC0-1.0", "unknown"]) is good


def test_a_licence_that_nobody_allowed_is_named_with_its_file(project: Project) -> None:
    measured = check("licences", case(project, settings=ComplianceSettings(licences=("MIT",))))
    assert measured.value == 0
    assert "data/hives.jsonl (CC0-1.0)" in measured.faults[0]


def test_a_base_model_without_a_licence_is_a_fault_until_the_project_states_it(project: Project) -> None:
    bare = replace(case(project).subject.base, licence="unknown")
    assert "compliance.base_licence" in check("base_licence", case(project, base=bare)).faults[0]
    stated = check("base_licence", case(project, base=bare, settings=ComplianceSettings(base_licence="MIT")))
    assert stated.faults == ()
    assert stated.details == {"licence": "MIT", "by": "project"}
    assert check("base_licence", case(project, base=bare, settings=ComplianceSettings(base_licence="unknown", licences=("unknown",)))).faults


def test_internal_data_needs_a_basis(project: Project) -> None:
    dataset = case(project).subject.dataset
    register = [{**dataset.facts["register"][0], "licence": "internal"}]
    measured = check("source_basis", case(project, dataset=changed(dataset, register=register)))
    assert measured.value == 0
    assert "no basis is stated for data/hives.jsonl" in measured.faults[0]
    register[0]["basis"] = "consent-2026-03"
    assert check("source_basis", case(project, dataset=changed(dataset, register=register))).value == 1


# The expert


def weights(adapter: Artifact, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    path = adapter.file("adapter_model.safetensors")
    save_file(change(load_file(path)), path)


def first(tensors: dict[str, np.ndarray], make: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    name = sorted(tensors)[0]
    return {**tensors, name: np.ascontiguousarray(make(tensors[name]))}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: first(found, lambda value: np.where(value == value.flat[0], np.nan, value).astype(value.dtype)), "values that are not finite"),
        (lambda found: first(found, lambda value: np.where(value == value.flat[0], np.inf, value).astype(value.dtype)), "values that are not finite"),
        (lambda found: first(found, lambda value: np.concatenate([value, value])), "has rank"),
        (lambda found: first(found, lambda value: value.astype(np.int32)), "number format 'I32'"),
        (lambda found: first(found, lambda value: value[None]), "has the shape"),
        (lambda found: {name: value for name, value in found.items() if name != min(found)}, "has only its"),
        (lambda found: {**found, "lm_head.weight": np.ones((2, 2), np.float32)}, "no tensor of a low-rank adapter"),
        (lambda found: {}, "holds no tensor"),
    ],
    ids=["nan", "infinite", "rank", "format", "shape", "one side", "stray tensor", "empty"],
)
def test_weights_that_are_not_sound_are_faults(project: Project, change: Callable[..., Any], said: str) -> None:
    of = case(project)
    weights(of.subject.adapter, change)
    measured = check("safe_formats", of)
    assert any(said in fault for fault in measured.faults), measured.faults
    assert any("was changed after training" in fault for fault in measured.faults)


@pytest.mark.parametrize("data", [b"", b"\xff" * 40, b"\x10\x00\x00\x00\x00\x00\x00\x00" + b"[" * 16, (1 << 40).to_bytes(8, "little") + b"{}"])
def test_a_file_that_is_no_safetensors_is_a_fault_and_no_crash(project: Project, data: bytes) -> None:
    of = case(project)
    of.subject.adapter.file("adapter_model.safetensors").write_bytes(data)
    assert any("not a sound safetensors file" in fault for fault in check("safe_formats", of).faults)


def test_a_pickled_file_and_code_in_the_configuration_are_faults(project: Project) -> None:
    of = case(project)
    (of.subject.adapter.path / "adapter_model.bin").write_bytes(b"x")
    path = of.subject.adapter.file("adapter_config.json")
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "auto_map": {"AutoModel": "evil.Model"}}))
    faults = check("safe_formats", of).faults
    assert any("adapter_model.bin is not safetensors" in fault for fault in faults)
    assert any("code of its own (auto_map)" in fault for fault in faults)


def test_a_task_without_result_a_value_that_is_none_and_a_clear_loss_are_faults(project: Project) -> None:
    evaluation = case(project).subject.evaluation
    tasks = json.loads(json.dumps(evaluation.facts["tasks"]))
    missing = changed(evaluation, tasks={name: rows for name, rows in tasks.items() if name != "season"})
    assert "the task season was asked and has no result" in check("held_out_evaluation", case(project, evaluation=missing)).faults
    tasks["season"]["acc"]["tuned"] = {"value": None, "low": None, "high": None}
    tasks["held-out"]["bits_per_character"]["verdict"] = "loss"
    faults = check("held_out_evaluation", case(project, evaluation=changed(evaluation, tasks=tasks))).faults
    assert any(fault.startswith("season, acc: not a number") for fault in faults)
    assert any("clearly worse than its base model in held-out" in fault for fault in faults)


def test_an_evaluation_of_the_probe_alone_decides_nothing(project: Project) -> None:
    evaluation = case(project).subject.evaluation
    only = changed(evaluation, tasks={"retention": evaluation.facts["tasks"]["retention"]}, items={"retention": {}})
    assert "no task was asked" in (check("held_out_evaluation", case(project, evaluation=only)).undecided or "")


def test_items_that_were_trained_on_are_found_by_record_and_by_prompt(project: Project) -> None:
    of = case(project)
    trained = next(read_records(of.subject.dataset.file("part-train-00000.parquet")))
    path = of.subject.evaluation.file("samples/season.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0]["record_id"] = trained.id
    rows[1] |= {"record_id": "", "prompt": [{"role": message.role, "content": message.content} for message in trained.messages[:-1]]}
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    measured = check("held_out_evaluation", of)
    assert "2 items were trained on" in measured.faults
    assert measured.value == pytest.approx((measured.n - 2) / measured.n)


def test_retention_is_taken_with_its_bounds_and_what_is_not_measurable_is_not_decided(project: Project) -> None:
    evaluation = case(project).subject.evaluation
    facts = evaluation.facts["retention"]
    kept = changed(evaluation, retention={**facts, "retention": {"value": 0.97, "low": 0.91, "high": 1.02}, "measurable": True})
    measured = check("retention", case(project, evaluation=kept))
    assert (measured.value, measured.low, measured.high, measured.n) == (0.97, 0.91, 1.02, 20)
    assert "not clearly above chance" in (
        check("retention", case(project, evaluation=changed(evaluation, retention={**facts, "retention": None}))).undecided or ""
    )
    assert "not asked" in (check("retention", case(project, evaluation=changed(evaluation, retention=None))).undecided or "")


def test_a_log_that_does_not_verify_is_a_fault_and_no_log_decides_nothing(project: Project) -> None:
    assert check("ledger_intact", case(project, ledger=LedgerFacts(9, "00", False, "entry 4 was changed"))).faults == ("entry 4 was changed",)
    assert check("ledger_intact", case(project, ledger=None)).undecided == "no log of events was given"
