"""Parts that the tests of several rooms share: the tiny base model and small datasets in a real store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from metier.artifacts import Artifact
from metier.models import Base
from metier.records import Message, Record, identify
from metier.shards import write_records
from metier.store import Store
from metier.testing import tiny_base, tiny_encoder

MakeDataset = Callable[..., Artifact]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The tiny base model, built once."""
    return tiny_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The tiny encoder, built once."""
    return tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / ".metier")


def conversation(question: str, answer: str, *, task: str = "chat", label: str | None = None, language: str = "en") -> Record:
    """Return a record of one question and one learnt answer."""
    messages = (Message("user", question), Message("assistant", answer, learn=True))
    record = Record(id="", messages=messages, task=task, label=label, language=language)
    return Record(id=identify(record), messages=messages, task=task, label=label, language=language)


def stir(model: torch.nn.Module, spread: float) -> None:
    """Move every parameter that is trained by chance, so that nothing is where it begins: what starts at zero hides what is wrong."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)


@pytest.fixture
def make_dataset(store: Store, tmp_path: Path) -> MakeDataset:
    """Return a function that commits records by split as a dataset artefact."""

    def make(**splits: Sequence[Record]) -> Artifact:
        folder = tmp_path / "making"
        folder.mkdir(parents=True, exist_ok=True)
        for split, records in splits.items():
            write_records(folder / f"part-{split}-00000.parquet", records)
        return store.commit("dataset", folder, parents=[], facts={"splits": {split: len(records) for split, records in splits.items()}})

    return make
