"""Released models with a head: requests for labels and spans that wait together are read together, in packed rows.

One thread owns the models. What a text gets does not depend on its neighbours but for the last digits of a probability: no text sees another.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from metier.digest import digest_file
from metier.errors import ModelError
from metier.models import Base, Labeller, Prediction
from metier.models.adapterfile import weights_of
from metier.models.labels import Labelling
from metier.models.words import Reading
from metier.serving.released import Executed, Served, check_base
from metier.serving.settings import ServingSettings
from metier.serving.ticket import Finished
from metier.serving.work import Busy, EngineFailed, Load

__all__ = ["Desk", "Labelled", "TooLong"]

_LOG = logging.getLogger("metier.serving")
_TOGETHER = 256
"""Texts of several requests that are read together at most: a bound on how long the next ones wait."""


class TooLong(Exception):
    """A text of a request, by its place, has more tokens than the model takes."""

    def __init__(self, place: int, tokens: int, most: int) -> None:
        super().__init__(f"{tokens} tokens, and the model takes {most}")
        self.place = place


@dataclass(frozen=True, slots=True)
class Labelled:
    """The answers to a request's texts, in order, and what they took."""

    answers: tuple[Prediction, ...]
    finished: Finished


@dataclass(frozen=True, slots=True)
class _Asked:
    place: int
    texts: Sequence[str]
    pairs: Sequence[str | None]
    result: Future[Labelled]
    at: float = field(default_factory=time.monotonic)


class Desk:
    """Labels texts by released models. Methods may be called from any thread; `start` and `stop` once."""

    def __init__(self, loaded: Sequence[Executed], labellers: Sequence[Labeller], settings: ServingSettings) -> None:
        """`labellers[i]` is the model of the release `loaded[i]`."""
        self.loaded = tuple(loaded)
        self._labellers = tuple(labellers)
        self._places = {item.name: place for place, item in enumerate(loaded)}
        self._max_queue = settings.max_queue
        self._waiting: deque[_Asked] = deque()
        self._running: list[_Asked] = []
        self._stopping = False
        self._spent = 0.1
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="metier-desk", daemon=True)

    @classmethod
    def open(cls, base: Base, releases: Sequence[Served], settings: ServingSettings, *, dtype: torch.dtype | None = None) -> Desk:
        """Load the models of releases.

        Raises ModelError for a release of another base model, files that are not those of the release, or a model that does not fit.
        """
        loaded, labellers = [], []
        for release in releases:
            check_base(release, base)
            for name, digest in release.files.items():
                path = release.adapter / name
                if not path.is_file() or digest_file(path) != digest:
                    raise ModelError(f"{path} is not the file of the release {release.name}\n    -> restore the release folder")
            weights = release.files[weights_of(release.adapter)]
            loaded.append(Executed(release.name, release.release_digest, release.adapter_digest, base.digest, weights))
            labellers.append(Labeller.open(base, release.adapter, dtype=dtype))
        return cls(loaded, labellers, settings)

    # What the event loop calls.

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """End the thread; what still waits fails. Returns when it has ended or `seconds` are over."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        """Whether requests are being worked on."""
        return self._thread.is_alive() and not self._stopping

    @property
    def load(self) -> Load:
        """What runs and waits now."""
        running, waiting = list(self._running), list(self._waiting)
        return Load(len(running), len(waiting), self._names(running), self._names(waiting))

    def _names(self, requests: Sequence[_Asked]) -> tuple[str, ...]:
        return tuple(sorted({self.loaded[request.place].name for request in requests}))

    def find(self, name: str) -> Executed | None:
        """Return the release that is loaded under exactly this name."""
        place = self._places.get(name)
        return None if place is None else self.loaded[place]

    def labelling(self, name: str) -> Labelling:
        """Return what a release answers. Raises KeyError for one that is not loaded."""
        return self._labellers[self._places[name]].labelling

    def longest(self, name: str) -> int:
        """Return how many tokens a text may have for a release."""
        return self.labelling(name).maximum_tokens

    def submit(self, name: str, texts: Sequence[str], pairs: Sequence[str | None]) -> Future[Labelled]:
        """Queue texts (with their second texts, None where there is none) and return what their answers come to.

        That fails with TooLong for a text that does not fit and with EngineFailed where the work failed. Raises KeyError for a release that is not
        loaded, Busy where the queue is full, EngineFailed where the desk has ended.
        """
        asked = _Asked(self._places[name], texts, pairs, Future())
        with self._wake:
            if not self.alive:
                raise EngineFailed("the desk does not work")
            if len(self._waiting) >= max(1, self._max_queue):
                raise Busy(max(1, min(60, round(self._spent * (len(self._waiting) + 1)))))
            self._waiting.append(asked)
            self._wake.notify()
        return asked.result

    # What the desk's own thread does.

    def _run(self) -> None:
        with torch.inference_mode():
            while self._next():
                began = time.monotonic()
                self._work(began)
                self._spent += 0.2 * ((time.monotonic() - began) / len(self._running) - self._spent)
                self._running = []
        for asked in self._waiting:
            if asked.result.set_running_or_notify_cancel():
                asked.result.set_exception(EngineFailed("the server is stopping"))

    def _next(self) -> bool:
        """Sleep until something waits, and take what can be read together; return whether to go on."""
        with self._wake:
            while not (self._stopping or self._waiting):
                self._wake.wait()
            if self._stopping:
                return False
            left, kept = _TOGETHER, deque[_Asked]()
            place = self._waiting[0].place
            for asked in self._waiting:
                fits = asked.place == place and (not self._running or len(asked.texts) <= left)
                (self._running if fits else kept).append(asked)
                left -= len(asked.texts) if fits else 0
            self._waiting = kept
        return True

    def _work(self, began: float) -> None:
        """Read the texts of all requests that were taken, and give each its answers."""
        labeller, executed = self._labellers[self._running[0].place], self.loaded[self._running[0].place]
        taken = [asked for asked in self._running if asked.result.set_running_or_notify_cancel()]
        read: list[tuple[_Asked, list[Reading]]] = []
        try:
            for asked in taken:
                readings = labeller.read(asked.texts, asked.pairs)
                most = labeller.labelling.maximum_tokens
                long = next((place for place, reading in enumerate(readings) if len(reading) > most), None)
                if long is None:
                    read.append((asked, readings))
                else:
                    asked.result.set_exception(TooLong(long, len(readings[long]), most))
            given = iter(labeller.answer([text for asked, _ in read for text in asked.texts], [item for _, readings in read for item in readings]))
            for asked, readings in read:
                answers, tokens, ended = tuple(next(given) for _ in readings), sum(map(len, readings)), time.monotonic()
                asked.result.set_result(Labelled(answers, Finished("stop", executed, tokens, 0, began - asked.at, None, ended - asked.at)))
        except Exception as error:  # noqa: BLE001 - these requests fail, the server goes on
            _LOG.error("texts of %d requests could not be labelled: %s", len(taken), type(error).__name__)
            for asked in taken:
                if not asked.result.done():
                    asked.result.set_exception(EngineFailed(type(error).__name__))
