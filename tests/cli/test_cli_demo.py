"""`metier demo` writes a project once, whole or not at all, and runs it like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.conftest import Finished, Invoke, losses
from metier import demo
from metier.errors import InputError

MODULE = """
import json, shutil
from pathlib import Path

def write_project(folder, *, seed, scale):
    if seed == 13:
        (folder / "metier.yaml").write_text("half")
        raise KeyboardInterrupt
    shutil.copytree({origin!r}, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".metier"))
    (folder / "order.json").write_text(json.dumps([seed, scale]))
"""


@pytest.fixture
def hive_demo(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution that offers a demo: the finished project's data and settings."""
    site = tmp_path / "site"
    facts = site / "hive_demo-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: hive-demo\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text("[metier.demos]\nhives = hive_demo_data:write_project\n", encoding="utf-8")
    (site / "hive_demo_data.py").write_text(MODULE.format(origin=str(finished.folder)), encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    yield site
    shutil.rmtree(site)


def test_the_demo_is_found_by_its_entry_point(hive_demo: Path) -> None:
    assert "hives" in demo.available()
    with pytest.raises(InputError, match="did you mean 'hives'"):
        demo.prepare(hive_demo.parent / "demo", name="hive")


def test_a_demo_is_written_once_and_then_goes_on(hive_demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    first = demo.prepare(folder, name="hives", seed=3, scale=0.5)
    assert json.loads((folder / "order.json").read_bytes()) == [3, 0.5]
    (folder / "data" / "kept").touch()
    assert demo.prepare(folder, name="hives", seed=3, scale=0.5) == first
    assert (folder / "data" / "kept").exists()
    with pytest.raises(InputError, match="'seed': 3"):
        demo.prepare(folder, name="hives", seed=4, scale=0.5)


def test_a_demo_that_was_stopped_while_it_was_written_is_written_anew(hive_demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with pytest.raises(KeyboardInterrupt):
        demo.prepare(folder, name="hives", seed=13)
    assert not folder.exists()
    folder.mkdir()
    assert demo.prepare(folder, name="hives", seed=0).settings.project == "hives"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_with_something_else_in_it_is_left_alone(hive_demo: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="something else than a demo"):
        demo.prepare(tmp_path / "mine", name="hives")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_the_command_runs_the_demo_to_its_answers_and_total_time(hive_demo: Path, finished: Finished, tmp_path: Path, invoke: Invoke) -> None:
    folder = tmp_path / "demo"
    ended = invoke("demo", folder, "--demo", "hives")
    assert ended.code == 0, ended.err
    assert len(losses(folder)) == len(losses(finished.folder))
    for part in ("base against tuned", "question: 春天的蜂箱有几张子脾？", "  base:   ", "  expert: ", "report     ", "total time 0:", "go on with:"):
        assert part in ended.out
    again = invoke("demo", folder, "--demo", "hives", "--json")
    assert again.code == 0
    assert again.err.count("unchanged") == 5
    assert again.document["evaluation"]["digest"] in ended.out


def test_the_demo_goes_on_to_a_release_an_answer_over_http_and_a_verified_log(hive_demo: Path, tmp_path: Path, invoke: Invoke) -> None:
    folder = tmp_path / "demo"
    first = invoke("demo", folder, "--demo", "hives", "--json")
    assert first.code == 0, first.err
    document = first.document
    assert document["decision"]["verdict"] == "pass"
    assert document["answer"]["model"] == "hives"
    assert document["answer"]["metier"]["release"] == document["release"]
    assert document["answer"]["metier"]["adapter"] == document["adapter"]["digest"]
    again = invoke("demo", folder, "--demo", "hives")
    assert again.code == 0, again.err
    for part in ("decision   ", "pass", "approval   ", "'Second Person'", "the demo plays both", "release    ", "asked over HTTP", "intact"):
        assert part in again.out
    verified = invoke("audit", "verify", folder)
    assert verified.code == 0, verified.err
    traced = invoke("trace", document["answer"]["id"], folder, "--json")
    assert traced.code == 0, traced.err
    assert document["adapter"]["digest"] in traced.out
    assert document["dataset"]["digest"] in traced.out
