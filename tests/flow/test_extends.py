"""A project file may extend another one beside it: what it says is laid over the other, and faults name the file and line that they stand in."""

from __future__ import annotations

from pathlib import Path

import pytest

from metier.errors import ConfigError
from metier.project import load_project, read_project_file

BASE = """metier: 1
project: hives
pack: example
sources:
  - {path: data.jsonl, licence: CC0-1.0, columns: {question: a, answer: a}}
training:
  epochs: 3
  batch: {rows: 2, row_tokens: 128}
  adaptation:
    targets: [q_proj, v_proj]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "metier.yaml").write_text(BASE)
    return tmp_path


def written(folder: Path, text: str, name: str = "other.yaml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_mappings_are_laid_over_each_other_and_all_else_is_replaced(folder: Path) -> None:
    file = written(folder, "extends: metier.yaml\ntraining:\n  method: dora\n  batch: {rows: 4}\n  adaptation: {targets: [up_proj]}\n")
    training = load_project(file).settings.training
    assert (training.method, training.epochs) == ("dora", 3)
    assert (training.batch.rows, training.batch.row_tokens) == (4, 128)
    assert training.adaptation.targets == ("up_proj",)
    assert load_project(folder).settings.training.method == "auto"
    third = written(folder, "extends: other.yaml\nproject: third\n", "third.yaml")
    settings = load_project(third).settings
    assert (settings.project, settings.training.method, settings.training.epochs) == ("third", "dora", 3)


def test_a_fault_names_the_file_and_the_line_that_it_stands_in(folder: Path) -> None:
    (folder / "metier.yaml").write_text(BASE.replace("epochs: 3", "epochs: -3"))
    file = written(folder, "extends: metier.yaml\ntraining:\n  method: dorra\n  batch:\n    rows: 0\n")
    with pytest.raises(ConfigError) as caught:
        load_project(file)
    said = str(caught.value)
    assert "other.yaml:3: training.method" in said
    assert "other.yaml:5: training.batch.rows" in said
    assert "metier.yaml:7: training.epochs" in said


def test_lines_of_what_is_replaced_are_forgotten(folder: Path) -> None:
    document = read_project_file(written(folder, "extends: metier.yaml\ntraining:\n  adaptation:\n    targets: all-linear\n"))
    assert ("training", "adaptation", "targets", 0) not in document.lines
    assert document.value["training"]["adaptation"] == {"targets": "all-linear"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: ../metier.yaml\n", "the name of a file in the same folder"),
        ("extends: [metier.yaml]\n", "the name of a file in the same folder"),
        ("extends: nothing.yaml\n", "there is no such file"),
        ("extends: other.yaml\n", "other.yaml extends this file in its turn"),
        ("extend: metier.yaml\n", "extend: unknown key"),
    ],
)
def test_what_cannot_be_extended_is_said(folder: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_project(written(folder, text))
    assert said in str(caught.value)
