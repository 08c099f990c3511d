"""`metier run`, `train`, `evaluate` and `data build`: what they print, what they skip, what they refuse."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from cli.conftest import Finished, Invoke, as_process
from cli.hives import rows, write_jsonl, write_project
from metier.models import Base
from metier.project import load_project
from metier.shards import read_drops
from metier.store import Store

DIGEST = re.compile(r"[0-9a-f]{64}")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


def test_run_prints_one_json_document_of_the_promised_shape(finished: Finished) -> None:
    assert len(finished.ended.out.splitlines()) == 1
    document = finished.document
    assert list(document) == ["project", "dataset", "run", "adapter", "evaluation", "decision", "release", "ledger", "seconds"]
    assert document["project"] == "hives"
    assert document["dataset"]["records"] == sum(document["dataset"]["splits"].values()) == 200
    assert set(document["dataset"]) == {"digest", "records", "drops", "splits"}
    assert set(document["dataset"]["splits"]) == {"train", "validation", "test"}
    assert set(document["run"]) == {"digest", "tokens_per_second", "peak_memory_bytes", "final_loss", "seconds"}
    assert set(document["adapter"]) == {"digest", "path", "trainable_parameters"}
    assert all(DIGEST.fullmatch(document[stage]["digest"]) for stage in ("dataset", "run", "adapter", "evaluation", "decision"))
    assert document["release"] is None
    assert document["seconds"] > document["run"]["seconds"] > 0


def test_every_task_has_base_tuned_and_difference_with_their_intervals(finished: Finished) -> None:
    tasks = finished.document["evaluation"]["tasks"]
    asked = {task: list(metrics) for task, metrics in tasks.items()}
    assert asked == {"count": ["count_match", "exact_match"], "season": ["acc"], "held-out": ["bits_per_character"], "retention": ["acc"]}
    for metrics in tasks.values():
        for row in metrics.values():
            assert set(row["invalid"]) == {"base", "tuned"}
            assert row["n"] > 0
            for side in ("base", "tuned", "delta"):
                assert row[side]["low"] <= row[side]["value"] <= row[side]["high"]
            assert row["delta"]["value"] == pytest.approx(row["tuned"]["value"] - row["base"]["value"])


def test_what_run_made_lies_where_it_says(finished: Finished) -> None:
    adapter, evaluation = (Path(finished.document[stage]["path"]) for stage in ("adapter", "evaluation"))
    assert (adapter / "adapter_model.safetensors").is_file()
    assert (adapter / "adapter_config.json").is_file()
    assert json.loads((evaluation / "manifest.json").read_bytes())["digest"] == finished.document["evaluation"]["digest"]
    assert "春天的蜂箱有几张子脾？" in (evaluation / "report.html").read_text(encoding="utf-8")


def test_progress_is_plain_lines_when_piped(finished: Finished) -> None:
    lines = finished.ended.err.splitlines()
    assert not [line for line in lines if CONTROL.search(line)]
    for task in ("refine", "training", "validation", "season (base)", "season (tuned)"):
        assert any(line.startswith(f"{task}: ") for line in lines)


def test_a_second_run_does_nothing_and_gives_the_same_digests(finished: Finished, invoke: Invoke) -> None:
    again = invoke("run", finished.folder, "--json")
    assert again.code == 0
    for stage in ("dataset", "run", "adapter", "evaluation", "decision"):
        assert again.document[stage] == finished.document[stage]
    said = again.err.splitlines()
    assert [line.split(",")[0] for line in said] == [
        "prepare: unchanged",
        "training: unchanged",
        "evaluation: unchanged",
        "compliance: unchanged",
        "compliance: unchanged",
    ]


@pytest.mark.parametrize(
    ("command", "reached"),
    [(("data", "build"), ["dataset"]), (("train",), ["dataset", "run", "adapter"]), (("evaluate",), ["dataset", "run", "adapter", "evaluation"])],
)
def test_a_stages_own_command_goes_as_far_as_its_stage(finished: Finished, invoke: Invoke, command: tuple[str, ...], reached: list[str]) -> None:
    document = invoke(*command, finished.folder, "--json").document
    assert [stage for stage in ("dataset", "run", "adapter", "evaluation") if document[stage] is not None] == reached
    assert [document[stage] for stage in reached] == [finished.document[stage] for stage in reached]


def test_dry_run_says_what_would_run_and_writes_nothing(project: Path, invoke: Invoke) -> None:
    shown = invoke("run", project, "--dry-run")
    assert shown.code == 0
    assert shown.out.split() == ["prepare", "would", "run", "training", "would", "run", "evaluation", "would", "run", "compliance", "would", "run"]
    assert sorted(path.name for path in project.iterdir()) == ["data", "metier.yaml"]


def test_dry_run_knows_what_is_unchanged(finished: Finished, invoke: Invoke) -> None:
    shown = invoke("run", finished.folder, "--dry-run").out.splitlines()
    assert [line.split(",")[0].split() for line in shown] == [
        ["prepare", "unchanged"],
        ["training", "unchanged"],
        ["evaluation", "unchanged"],
        ["compliance", "unchanged"],
    ]
    assert finished.document["dataset"]["digest"][:12] in shown[0]
    stages = invoke("train", finished.folder, "--dry-run", "--json").document["stages"]
    assert stages == {"prepare": "unchanged", "training": "unchanged"}


def test_a_changed_setting_runs_only_the_stages_that_read_it(finished: Finished, tmp_path: Path, invoke: Invoke) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(finished.folder, folder)
    file = folder / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("rank: 4", "rank: 2"), encoding="utf-8")
    shown = invoke("run", folder, "--dry-run").out.splitlines()
    assert [line.split(",")[0].split()[:2] for line in shown] == [
        ["prepare", "unchanged"],
        ["training", "would"],
        ["evaluation", "would"],
        ["compliance", "would"],
    ]


def test_people_get_a_table_with_verdicts_the_report_and_three_commands(finished: Finished, invoke: Invoke) -> None:
    shown = invoke("run", finished.folder).out
    header = next(line for line in shown.splitlines() if line.startswith("task  "))
    assert re.split(r"\s{2,}", header.strip()) == [
        "task",
        "metric",
        "base",
        "tuned",
        "difference",
        "95% interval",
        "n",
        "invalid (base, tuned)",
        "verdict",
    ]
    season = finished.document["evaluation"]["tasks"]["season"]["acc"]
    row = next(line for line in shown.splitlines() if line.startswith("season "))
    assert f"{season['base']['value']:.3f}" in row
    assert f"{season['delta']['low']:+.3f} .. {season['delta']['high']:+.3f}" in row
    assert row.rstrip().endswith(season["verdict"])
    assert "format apart from knowledge" in shown
    assert "retention  " in shown
    assert "question: 春天的蜂箱有几张子脾？" in shown
    assert Path(next(line.split()[1] for line in shown.splitlines() if line.startswith("report "))).is_file()
    after = shown[shown.index("go on with:") :].splitlines()[1:]
    assert len(after) == 3
    assert all(line.startswith("  metier ") for line in after)
    assert not CONTROL.search(shown.replace("\n", ""))


def test_a_misspelt_key_is_named_with_its_line_and_the_nearest_key(project: Path) -> None:
    file = project / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("  epochs: 1", "  epoch: 1").replace("limit: 10", "limits: 10"), encoding="utf-8")
    lines = file.read_text(encoding="utf-8").splitlines()
    ended = as_process("run", project)
    assert ended.code == 2
    assert ended.out == ""
    for key, nearest in (("epoch", "epochs"), ("limits", "limit")):
        line = next(number for number, text in enumerate(lines, start=1) if text.strip().startswith(f"{key}:"))
        assert f"metier.yaml:{line}: " in ended.err
        assert f"did you mean {nearest!r}?" in ended.err
    assert "Traceback" not in ended.err
    assert not (project / ".metier").exists()


def test_a_second_process_in_the_same_project_is_told_who_works_there(project: Path) -> None:
    with Store(project / ".metier").lock():
        ended = as_process("run", project)
    assert ended.code == 2
    assert re.search(r"error: .*hives is in use by process \d+ on .*since", ended.err)
    assert "nothing of its work is lost" in ended.err


def test_a_base_model_without_tokenizer_is_refused_with_a_remedy(project: Path, base: Base, tmp_path: Path, invoke: Invoke) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(base.folder, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    file = project / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(str(base.folder), str(bare)), encoding="utf-8")
    ended = invoke("train", project)
    assert ended.code == 2
    assert f"{bare} holds no tokenizer" in ended.err
    assert "-> put its tokenizer.json beside the weights" in ended.err


@pytest.mark.parametrize("who", ["base", "teacher"])
def test_a_model_that_is_not_there_is_said_before_anything_is_prepared(project: Path, invoke: Invoke, who: str) -> None:
    file = project / "metier.yaml"
    text = file.read_text(encoding="utf-8")
    if who == "base":
        lines = ["base: models/none" if line.startswith("base:") else line for line in text.splitlines()]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        file.write_text(text.replace("  epochs: 1\n", "  epochs: 1\n  objectives: {distillation: {teacher: models/none}}\n"), encoding="utf-8")
    ended = invoke("run", project)
    assert ended.code == 2, ended.out
    assert "models/none" in ended.err
    assert not list((project / ".metier").glob("artifacts/dataset/*"))
    assert invoke("data", "build", project).code == 0, "data can be built without a model"


def test_a_record_of_a_megabyte_is_prepared_and_left_out_of_training_with_its_reason(base: Base, tmp_path: Path, invoke: Invoke) -> None:
    folder = write_project(tmp_path / "long", base.folder, count=30)
    giant = {**rows(1, seed=7)[0], "note": "蜂群" * 175_000, "keeper": "nobody else"}
    write_jsonl(folder / "data" / "giant.jsonl", [giant])
    assert (folder / "data" / "giant.jsonl").stat().st_size > 2**20
    file = folder / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "prepare: {split: {test: 0, validation: 0}}\n", encoding="utf-8")
    document = invoke("train", folder, "--json").document
    assert document["dataset"]["records"] == 62
    run = load_project(folder).store.open("run", document["run"]["digest"])
    dropped = list(read_drops(run.file("drops.parquet")))
    assert len(dropped) == 2
    assert {drop.reason.split(":")[0] for drop in dropped} == {"too_many_tokens"}


def test_sources_that_are_not_there_are_named(project: Path, invoke: Invoke) -> None:
    (project / "data" / "hives.jsonl").unlink()
    ended = invoke("run", project)
    assert ended.code == 2
    assert "sources[0].path" in ended.err
    assert "data/*.jsonl" in ended.err
