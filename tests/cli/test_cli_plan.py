"""`metier plan`: what it prints for people and machines, what it keeps, what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.conftest import Finished, Invoke
from metier.testing import tiny_base


@pytest.fixture
def planned(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished project, in which a plan may keep what it measures."""
    return Path(shutil.copytree(finished.folder, tmp_path / "hives"))


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_the_plan_is_a_page_that_can_be_read(planned: Path, invoke: Invoke) -> None:
    before = files(planned)
    ended = invoke("plan", planned, "--gpu", "l4", "--price", "l4=0.7", "--items", "4", "--target", "0.9")
    assert ended.code == 0, ended.err
    for part in (
        "project    hives:",
        "llama",
        "would prompting do? (good enough: 0.90 right)",
        "season zh",
        "Decision: train by lora of rank 4 with regularisation.",
    ):
        assert part in ended.out
    for part in (
        "examples are fewer than 500",
        "prepare.mix.replay",
        "what it takes",
        "as the project file says",
        "l4",
        "cost",
        "Calibrated over 10 steps",
        "KiB",
    ):
        assert part in ended.out
    after = files(planned)
    assert {name: after[name] for name in before} == before, "a plan changes nothing that is there"
    assert all(name.startswith(".metier/plan/") for name in set(after) - set(before))


def test_the_plan_as_json_without_measuring_keeps_nothing(planned: Path, invoke: Invoke) -> None:
    before = files(planned)
    ended = invoke("plan", planned, "--dry-run", "--json", "--method", "full", "--no-general", "--hours", "2")
    assert ended.code == 0, ended.err
    document = ended.document
    assert document["project"] == "hives"
    assert document["decision"]["method"]["name"] == "full"
    assert document["decision"]["overridden"]
    assert document["decision"]["trains"]["name"] == "full"
    assert {row["role"] for row in document["estimates"]} == {"project", "nearest"}
    assert document["calibration"] is None
    assert files(planned) == before


def test_base_models_are_ranked(planned: Path, invoke: Invoke, tmp_path: Path) -> None:
    tiny_base(tmp_path / "models" / "small", hidden=32)
    ended = invoke("plan", planned, "--bases", tmp_path / "models", "--items", "2", "--json")
    assert ended.code == 0, ended.err
    assert [Path(row["name"]).name for row in ended.document["bases"]] == ["small"]
    shown = invoke("plan", planned, "--bases", tmp_path / "models", "--items", "2")
    assert "base models on your data" in shown.out
    assert "cc0-1.0" in shown.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "lroa"], "did you mean 'lora'?"),
        (["--gpu", "h10"], "did you mean 'h100'?"),
        (["--price", "h100=2"], "name it with --gpu too"),
        (["--price", "here=cheap"], "write NAME=AMOUNT"),
        (["--price", "here=-1"], "give an amount of 0 or more"),
        (["--bases", "nowhere"], "nowhere holds no base model"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_planned_is_refused_with_a_remedy(finished: Finished, invoke: Invoke, options: list[str], said: str) -> None:
    ended = invoke("plan", finished.folder, "--dry-run", *options)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_a_project_without_a_dataset_is_told_how_to_make_one(project: Path, invoke: Invoke) -> None:
    ended = invoke("plan", project)
    assert ended.code == 2
    assert "has no dataset yet" in ended.err
