from __future__ import annotations

from pathlib import Path

import pytest

from metier.artifacts import Artifact
from metier.config import Settings
from metier.errors import StoreError
from metier.stages import Stages
from metier.store import Store, Workspace


class Choice(Settings):
    text: str = "a"


class Counter:
    """A stage that counts how often it worked."""

    def __init__(self) -> None:
        self.worked = 0

    def __call__(self, parent: Artifact | None, settings: Choice, *, workspace: Workspace, means: str = "") -> Artifact:
        self.worked += 1
        folder = workspace.folder / "result"
        folder.mkdir(exist_ok=True)
        (folder / "text.txt").write_text(settings.text)
        return workspace.commit("dataset", folder, parents=[parent.digest] if parent else [], facts={})


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    monkeypatch.setattr(Counter, "__module__", "metier.prepare.counter")
    return Counter()


def test_a_stage_is_done_once_for_the_same_inputs_and_again_for_others(store: Store, counter: Counter) -> None:
    seen: list[Artifact] = []
    stages = Stages(store, seen.append)
    (first,) = stages(counter, None, Choice())
    (same,) = stages(counter, None, Choice(), means="other means do not matter")
    assert first == same
    assert counter.worked == 1
    (other,) = stages(counter, None, Choice(text="b"))
    (child,) = stages(counter, first, Choice())
    assert counter.worked == 3
    assert child.parents == (first.digest,)
    assert seen == [first, same, other, child], "every returned artefact is handed to the recorder, also one that was there already"


def test_a_result_that_was_damaged_is_made_again(store: Store, counter: Counter) -> None:
    stages = Stages(store)
    (first,) = stages(counter, None, Choice())
    first.file("text.txt").write_text("")
    (again,) = stages(counter, None, Choice())
    assert counter.worked == 2
    assert again.file("text.txt").read_text() == "a"


def test_new_code_runs_the_stage_again(store: Store, counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = Stages(store)
    before = stages.key(counter, [None, Choice()])
    monkeypatch.setattr("metier.stages.code_of", lambda stage: "other code")
    assert stages.key(counter, [None, Choice()]) != before


def test_a_value_without_identity_is_refused(store: Store, counter: Counter) -> None:
    with pytest.raises(TypeError, match="no identity"):
        Stages(store)(counter, object(), Choice())


def test_an_interrupted_stage_finds_its_workspace_again_and_nothing_is_believed(store: Store, counter: Counter) -> None:
    def stops(*_: object, workspace: Workspace) -> Artifact:
        (workspace.folder / "so-far").write_text("half")
        raise KeyboardInterrupt

    stops.__module__ = "metier.prepare.counter"
    stages = Stages(store)
    with pytest.raises(KeyboardInterrupt):
        stages(stops, None)
    key = stages.key(stops, [None])
    assert store.find(key) is None
    assert (store.workspace(key).folder / "so-far").read_text() == "half"


def test_a_full_disk_inside_a_stage_is_a_clear_error(store: Store) -> None:
    def fills(*_: object, workspace: Workspace) -> Artifact:
        # /dev/full answers every write with "no space left on device".
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"x")
        raise AssertionError

    fills.__module__ = "metier.prepare.counter"
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StoreError, match="full; nothing half-written"):
        Stages(store)(fills, None)
