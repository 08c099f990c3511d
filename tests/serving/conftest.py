"""Parts of the serving tests: released adapters on the tiny model, a recorder that flushes every event to the disk, a real server."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch

from metier import packs
from metier.digest import digest_file
from metier.events import Event, Record
from metier.models import Base, LocalModel
from metier.models.lora import ALL_LINEAR, adapter_state, attach
from metier.models.lorafile import save_adapter
from metier.packs import Pack
from metier.serving import ApiKeys, Guard, Served, Service, ServingSettings, build_app, open_workers
from metier.serving.door import Door
from metier.serving.server import configure

NAMES = ("alpha", "beta", "gamma")


class FileRecorder:
    """Keeps events as lines of a file; an event is on the disk when its number is returned."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._stream = path.open("ab")
        self.events: list[Event] = []
        self.fail: Callable[[Event], bool] = lambda event: False
        self.delay = 0.0

    def __call__(self, event: Event) -> int:
        time.sleep(self.delay)
        if self.fail(event):
            raise OSError(28, "No space left on device")
        with self._lock:
            self._stream.write(json.dumps(asdict(event), ensure_ascii=False).encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self.events.append(event)
            return len(self.events) - 1

    def answered(self) -> list[Event]:
        return [event for event in self.events if event.facts["phase"] == "answered"]


@dataclass
class Running:
    """A server on a loopback port, and what it was made of."""

    url: str
    key: str
    service: Service
    recorder: FileRecorder
    keys: ApiKeys
    metrics_key: str
    stop: Callable[[], None]
    door: Door

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"authorization": f"Bearer {self.key}"}, timeout=60, **more)

    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=60)

    def settled(self, count: int, phase: str = "answered") -> list[Event]:
        """Wait until so many events of a phase are on record."""
        for _ in range(2400):
            found = [event for event in self.recorder.events if event.facts["phase"] == phase]
            if len(found) >= count:
                return found
            time.sleep(0.025)
        raise AssertionError(f"{len(found)} of {count} events came")


def make_adapter(base: Base, folder: Path, seed: int, *, rank: int = 4, targets: Any = ALL_LINEAR) -> Path:
    """Write an adapter whose effect is strong."""
    model = LocalModel.open(base, dtype=torch.float32)
    attach(model.model, rank=rank, alpha=2 * rank, dropout=0, targets=targets, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in adapter_state(model.model).items():
        if name.endswith("lora_B.weight"):
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    save_adapter(model.model, folder, base="tiny", rank=rank, alpha=2 * rank, dropout=0)
    return folder


def served(base: Base, name: str, folder: Path) -> Served:
    """Describe an adapter as a release."""
    files = {path.name: digest_file(path) for path in folder.iterdir()}
    return Served(name, folder, f"adapter-{name}", f"release-{name}", base.digest, files)


@pytest.fixture(scope="session")
def releases(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Served]:
    """Three releases of different ranks and layers."""
    root = tmp_path_factory.mktemp("releases")
    shapes: list[dict[str, Any]] = [{}, {"rank": 8, "targets": ["q_proj", "v_proj"]}, {"rank": 2, "targets": ["down_proj", "o_proj", "q_proj"]}]
    return [served(base, name, make_adapter(base, root / name, seed, **shapes[seed])) for seed, name in enumerate(NAMES)]


@pytest.fixture(scope="session")
def pack() -> Pack:
    """A real pack: guard rules that disclaim, refuse and redact."""
    return packs.load("medical")


SETTINGS = ServingSettings(port=0, rows=4, context=256, max_new_tokens=128, max_queue=32, grace=2.0, timeout=30.0, read_timeout=2.0)


@contextmanager
def running(
    base: Base, releases: Sequence[Served], pack: Pack, folder: Path, settings: ServingSettings = SETTINGS, record: Record | None = None
) -> Iterator[Running]:
    """Run a real server on a free loopback port; events go to `record`, or to a file."""
    recorder, keys = FileRecorder(folder / "log.jsonl"), ApiKeys(folder / "keys")
    key, metrics_key = keys.new("tester"), keys.new("scraper", scopes=["metrics"])
    service = Service(open_workers(base, releases, settings, dtype=torch.float32), Guard(pack), keys, record or recorder, settings)
    door = build_app(service)
    server = configure(door, settings)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", key, service, recorder, keys, metrics_key, lambda: setattr(server, "should_exit", True), door)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def shared_server(base: Base, releases: list[Served], pack: Pack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that leave it as it is."""
    with running(base, releases, pack, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def server(shared_server: Running) -> Running:
    """The shared server with an empty list of events."""
    shared_server.recorder.events.clear()
    shared_server.recorder.fail = lambda event: False
    shared_server.recorder.delay = 0.0
    return shared_server


def question(text: str = "hello", **more: Any) -> dict[str, Any]:
    """Return the body of a short greedy request to `alpha`."""
    return {"model": "alpha", "messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 8, **more}


def events_of(response: httpx.Response) -> list[Any]:
    """Return the documents of a finished event stream; `[DONE]` as that text."""
    lines = [line.removeprefix("data: ") for line in response.content.decode().split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
