"""A small bilingual dataset, a pack and a store, as real artefacts."""

from pathlib import Path

import pytest

from evaluation.bilingual import add, all_records, chat, commit_adapter, commit_dataset, feel, make_pack
from metier.artifacts import Artifact
from metier.packs.spec import Pack
from metier.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project" / ".metier")


@pytest.fixture
def dataset(store: Store) -> Artifact:
    train = [make(100 + number, language) for make in (feel, add, chat) for language in ("zh", "en") for number in range(6)]
    return commit_dataset(store, {"train": train, "validation": [], "test": all_records(20)})


@pytest.fixture
def adapter(store: Store, dataset: Artifact) -> Artifact:
    return commit_adapter(store, dataset)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return make_pack(tmp_path)
