"""`metier init` writes a project that loads; wrong input is refused with a remedy and changes nothing."""

from __future__ import annotations

from pathlib import Path

import metier
from cli.conftest import Invoke
from metier.project import ProjectSettings, load_project


def test_init_writes_a_project_file_that_loads_and_shows_every_key(tmp_path: Path, invoke: Invoke) -> None:
    ended = invoke("init", tmp_path / "hives", "--pack", "example")
    assert ended.code == 0
    settings = load_project(tmp_path / "hives").settings
    assert (settings.project, settings.pack) == ("hives", "example")
    assert (tmp_path / "hives" / "data").is_dir()
    text = (tmp_path / "hives" / "metier.yaml").read_text(encoding="utf-8")
    assert [key for key in ProjectSettings.model_fields if f"{key}:" not in text] == []


def test_init_overwrites_nothing(tmp_path: Path, invoke: Invoke) -> None:
    (tmp_path / "metier.yaml").write_text("mine", encoding="utf-8")
    ended = invoke("init", tmp_path, "--pack", "example", "--name", "hives")
    assert ended.code == 2
    assert "metier.yaml: there is a project file already" in ended.err
    assert (tmp_path / "metier.yaml").read_text(encoding="utf-8") == "mine"


def test_init_names_the_nearest_pack(tmp_path: Path, invoke: Invoke) -> None:
    ended = invoke("init", tmp_path / "new", "--pack", "exampel", "--name", "hives")
    assert ended.code == 2
    assert "did you mean 'example'?" in ended.err
    assert not (tmp_path / "new").exists()


def test_a_folder_whose_name_projects_cannot_have_asks_for_a_name(tmp_path: Path, invoke: Invoke) -> None:
    refused = invoke("init", tmp_path / "养蜂", "--pack", "example")
    assert refused.code == 2
    assert "--name NAME" in refused.err
    assert invoke("init", tmp_path / "养蜂", "--pack", "example", "--name", "hives").code == 0
    assert load_project(tmp_path / "养蜂").settings.project == "hives"


def test_an_unknown_command_or_option_ends_with_2_and_points_to_the_help(invoke: Invoke) -> None:
    for arguments in (["rnu"], ["run", "--jsno"], ["run", "--processes", "0"], ["init"]):
        ended = invoke(*arguments)
        assert ended.code == 2
        assert ended.err.startswith("error: ")
        assert "metier --help" in ended.err


def test_the_version_is_the_packages(invoke: Invoke) -> None:
    assert invoke("--version").out == f"metier {metier.__version__}\n"
