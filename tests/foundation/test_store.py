from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from metier.artifacts import MANIFEST, manifest_digest
from metier.errors import BusyError, StoreError
from metier.store import Store, write_atomically


def make(store: Store, key: str, text: str = "hello", **facts: object) -> object:
    folder = store.workspace(key).folder / "result"
    folder.mkdir()
    (folder / "text.txt").write_text(text)
    return store.commit("dataset", folder, parents=["p"], facts=facts)


def test_an_artefact_is_named_by_what_is_in_it(store: Store) -> None:
    first, again, other = make(store, "a", n=1), make(store, "b", n=1), make(store, "c", n=2)
    assert first == again != other
    manifest = json.loads((first.path / MANIFEST).read_bytes())
    assert manifest["digest"] == manifest_digest(manifest) == first.digest == first.path.name
    assert first.file("text.txt").read_text() == "hello"
    assert first.files["text.txt"] == {"sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "bytes": 5}


def test_a_file_that_the_manifest_does_not_list_cannot_be_asked_for(store: Store) -> None:
    with pytest.raises(KeyError, match=r"text\.txt"):
        make(store, "a").file("other.txt")


def test_a_folder_without_its_manifest_does_not_exist(store: Store) -> None:
    artifact = make(store, "a")
    store.remember("key", [artifact])
    (artifact.path / MANIFEST).unlink()
    assert store.find("key") is None
    with pytest.raises(StoreError, match="no finished dataset"):
        store.open("dataset", artifact.digest)


def test_a_manifest_that_was_changed_is_refused(store: Store) -> None:
    artifact = make(store, "a", n=1)
    path = artifact.path / MANIFEST
    path.write_text(path.read_text().replace('"n": 1', '"n": 2'))
    with pytest.raises(StoreError, match="changed after it was written"):
        store.open("dataset", artifact.digest)


@pytest.mark.parametrize("damage", [b"", b"hell", b"hellx"])
def test_damaged_files_are_found(store: Store, damage: bytes) -> None:
    artifact = make(store, "a")
    assert store.damaged(artifact) == []
    artifact.file("text.txt").write_bytes(damage)
    assert store.damaged(artifact) == ["text.txt"]


def test_a_result_with_a_missing_file_is_made_again(store: Store) -> None:
    artifact = make(store, "a")
    store.remember("key", [artifact])
    assert store.find("key") == (artifact,)
    artifact.file("text.txt").unlink()
    assert store.find("key") is None


def test_what_is_remembered_survives_and_its_workspace_is_cleared(store: Store) -> None:
    workspace = store.workspace("key")
    (workspace.folder / "left.over").touch()
    artifact = make(store, "a")
    store.remember("key", [artifact])
    assert Store(store.root).find("key") == (artifact,)
    assert not (store.root / "work" / "key").exists()
    assert store.find("another") is None


def test_two_processes_cannot_work_in_one_project(store: Store) -> None:
    code = (
        "import sys; from pathlib import Path; from metier.store import Store\nwith Store(Path(sys.argv[1])).lock(): print('in'); sys.stdout.flush(); input()"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(store.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(BusyError, match=rf"in use by process {holder.pid} on .*since"), store.lock():
            pass
    finally:
        holder.kill()
        holder.wait()
    with store.lock():
        assert json.loads((store.root / "lock.json").read_bytes())["pid"] == os.getpid()


def test_an_atomic_write_replaces_the_whole_file_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two", mode=0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["file"]


def test_a_secret_is_made_once_and_readable_by_its_owner_alone(store: Store) -> None:
    secret = store.secret("surrogates")
    assert len(secret) == 32
    assert store.secret("surrogates") == secret != store.secret("other")
    assert (store.root / "keys" / "surrogates").stat().st_mode & 0o777 == 0o600
    assert (store.root / "keys").stat().st_mode & 0o777 == 0o700
