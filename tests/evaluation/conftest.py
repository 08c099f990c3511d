"""A small bilingual dataset, a pack and a store, as real artefacts."""

from pathlib import Path

import pytest

from evaluation.bilingual import commit_adapter, make_pack, small_dataset
from metier.artifacts import Artifact
from metier.packs.spec import Pack
from metier.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project" / ".metier")


@pytest.fixture
def dataset(store: Store) -> Artifact:
    return small_dataset(store)


@pytest.fixture
def adapter(store: Store, dataset: Artifact) -> Artifact:
    return commit_adapter(store, dataset)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return make_pack(tmp_path)
