"""A finished project for all tests of this room, and a copy of it for each test that changes something."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import decided
from metier.models import Base
from metier.project import Project


@pytest.fixture(scope="session")
def finished(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project with a decision that only waits for an approval. Tests must not change it."""
    return decided.make(tmp_path_factory.mktemp("decided") / "hives", base)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tiny model gains nothing from more threads, and two of them wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A copy that may be changed."""
    return decided.copy(finished, tmp_path / "hives")
