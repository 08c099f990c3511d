"""Continuous batching: requests join and leave between the steps of one batch, several released adapters side by side.

One thread owns the model and the cache of keys and values, which holds `rows` sequences of at most `context` tokens and is never
larger. Active rows stand at the front of the cache. A question is read alone and each step is worked out by `metier.models.step`, so an
answer does not depend on its neighbours. Every request names a release; one that is not loaded is refused, never given to the base.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from metier.errors import ModelError
from metier.models import Base, Chat, GenerationSettings, LocalModel, load_tokenizer, load_weights
from metier.models.attention import Cache, Prefill
from metier.models.head import next_logits
from metier.models.lora import read_adapter
from metier.models.precision import fastest_dtype
from metier.models.sampling import pick, seeded
from metier.models.stack import Gate, stack
from metier.models.step import Step, padded
from metier.records import Message
from metier.serving.released import Executed, Served, check_names
from metier.serving.settings import ServingSettings
from metier.serving.text import Writer
from metier.serving.ticket import Finish, Finished, Post, Ticket

__all__ = ["Busy", "Engine", "EngineFailed", "Load"]

_LOG = logging.getLogger("metier.serving")
_PROMPT_TOKENS_A_STEP = 512
"""Questions of so many tokens in all are read between two steps (at least one question): a bound on how long answers stand still."""


class Busy(Exception):
    """All rows are taken and the queue is full; `seconds` is when it may be worth to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__("the queue is full")
        self.seconds = seconds


class EngineFailed(Exception):
    """The step that worked on this request failed."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests run and wait, and for which releases."""

    running: int
    waiting: int
    running_names: tuple[str, ...]
    waiting_names: tuple[str, ...]


@dataclass(slots=True)
class _Request:
    place: int
    tokens: list[int]
    settings: GenerationSettings
    ticket: Ticket
    writer: Writer
    generator: torch.Generator
    asked: float
    began: float = 0.0
    first: float = 0.0
    count: int = 0
    last: int = 0


@dataclass(slots=True)
class _Shared:
    """What the event loop and the engine's thread both touch, under one lock."""

    waiting: deque[_Request] = field(default_factory=deque)
    stopping: bool = False
    spent: float = 1.0
    """Seconds that an answer takes from its row, smoothed."""


class Engine:
    """Generates answers of released adapters. Methods may be called from any thread; `start` and `stop` once."""

    def __init__(self, model: LocalModel, gate: Gate, loaded: Sequence[Executed], settings: ServingSettings) -> None:
        self.loaded = tuple(loaded)
        self.context = settings.context
        self.rows = settings.rows
        self._places = {item.name: place for place, item in enumerate(loaded)}
        self._model = model
        self._gate = gate
        self._max_queue = settings.max_queue
        self._cache = Cache(settings.rows, settings.context)
        self._active: list[_Request] = []
        self._shared = _Shared()
        self._wake = threading.Condition()
        self._post = Post()
        # Encoding changes a tokenizer's state for a moment; the thread that decodes has its own.
        self._decoder = copy.deepcopy(model.chat.tokenizer)
        self._encoding = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="metier-engine", daemon=True)

    @classmethod
    def open(cls, base: Base, releases: Sequence[Served], settings: ServingSettings, *, dtype: torch.dtype | None = None) -> Engine:
        """Load a base model once and the adapters of all releases beside it.

        Raises ModelError for a release of another base model, files that are not those of the release, an adapter that does not fit or
        another chat template than the one the adapter was trained with; InputError for names that cannot be served.
        """
        check_names(releases)
        weights = load_weights(base, dtype or fastest_dtype())
        chat = Chat(load_tokenizer(base))
        adapters, loaded = [], []
        for release in releases:
            _check_release(release, base, chat)
            adapter = read_adapter(weights, release.adapter, base=base.digest)
            for name, digest in adapter.files.items():
                if release.files.get(name) != digest:
                    raise ModelError(f"{release.adapter / name} is not the file of the release {release.name}\n    -> restore the release folder")
            adapters.append(adapter)
            loaded.append(Executed(release.name, release.release_digest, release.adapter_digest, base.digest, adapter.files["adapter_model.safetensors"]))
        gate = stack(weights, adapters)
        return cls(LocalModel(weights.eval(), chat), gate, loaded, settings)

    # What the event loop calls.

    def start(self) -> None:
        """Start the engine's thread."""
        self._thread.start()

    def stop(self, seconds: float = 10.0) -> None:
        """Cancel what runs or waits, and end the thread. Returns when it has ended or `seconds` are over."""
        with self._wake:
            self._shared.stopping = True
            self._wake.notify()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        """Whether requests are being worked on."""
        return self._thread.is_alive() and not self._shared.stopping

    @property
    def load(self) -> Load:
        """What runs and waits now."""
        running, waiting = list(self._active), list(self._shared.waiting)
        return Load(len(running), len(waiting), self._names(running), self._names(waiting))

    def _names(self, requests: Sequence[_Request]) -> tuple[str, ...]:
        return tuple(sorted({self.loaded[request.place].name for request in requests}))

    def find(self, name: str) -> Executed | None:
        """Return the release that is loaded under exactly this name."""
        place = self._places.get(name)
        return None if place is None else self.loaded[place]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a question. Raises ModelError if the base model's chat template refuses the conversation."""
        with self._encoding:
            return self._model.chat.prompt(messages)

    def submit(self, name: str, tokens: Sequence[int], settings: GenerationSettings) -> Ticket:
        """Queue a question and return the ticket that its answer comes to; to be called on the event loop.

        Raises KeyError for a release that is not loaded, ValueError where question and answer do not fit into the context, Busy where the
        queue is full, EngineFailed where the engine has ended.
        """
        place = self._places[name]
        if not tokens or len(tokens) + settings.max_new_tokens > self.context:
            raise ValueError(f"{len(tokens)} tokens and {settings.max_new_tokens} more do not fit into {self.context}")
        ticket = Ticket(self._cancelled)
        writer = Writer(self._decoder, settings.stop)
        request = _Request(place, list(tokens), settings, ticket, writer, seeded(settings.seed), time.monotonic())
        with self._wake:
            if not self.alive:
                raise EngineFailed("the engine does not run")
            waiting = len(self._shared.waiting)
            if waiting >= max(self._max_queue, self.rows - len(self._active)):
                raise Busy(max(1, min(60, round(self._shared.spent * (waiting + 1) / self.rows))))
            self._shared.waiting.append(request)
            self._wake.notify()
        return ticket

    def _cancelled(self) -> None:
        with self._wake:
            self._wake.notify()

    # What the engine's own thread does.

    def _run(self) -> None:
        with torch.inference_mode():
            while self._wait():
                self._leave()
                self._enter()
                if self._active:
                    self._step()
                self._post.flush()
        for request in [*self._active, *self._shared.waiting]:
            self._end(request, "cancelled")
        self._active.clear()
        self._post.flush()

    def _wait(self) -> bool:
        """Sleep until there is something to do; return whether to go on."""
        with self._wake:
            while not (self._shared.stopping or self._active or self._shared.waiting):
                self._wake.wait()
            return not self._shared.stopping

    def _leave(self) -> None:
        """Take out what was cancelled, running or waiting."""
        for row in range(len(self._active) - 1, -1, -1):
            if self._active[row].ticket.cancelled:
                self._end(self._active[row], "cancelled")
                self._free(row)
        with self._wake:
            gone = [request for request in self._shared.waiting if request.ticket.cancelled]
            for request in gone:
                self._shared.waiting.remove(request)
        for request in gone:
            self._end(request, "cancelled")

    def _enter(self) -> None:
        """Read waiting questions into free rows, each alone."""
        budget = _PROMPT_TOKENS_A_STEP
        while len(self._active) < self.rows and budget > 0:
            with self._wake:
                if not self._shared.waiting:
                    return
                request = self._shared.waiting.popleft()
            budget -= len(request.tokens)
            row = len(self._active)
            self._active.append(request)
            request.began = time.monotonic()
            try:
                logits = self._read(request, row)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong here is this request's failure and not the server's
                self._fail([request], error)
                continue
            if self._take(request, logits[0]):
                self._free(row)

    def _read(self, request: _Request, row: int) -> torch.Tensor:
        """Put a question into a row of the cache and return the logits [1, vocabulary] of the first token."""
        count = len(request.tokens)
        self._gate.choose([request.place] * count)
        states = self._model.hidden(request.tokens, range(count), Prefill([count], self._cache, [row]))
        return next_logits(states[-1:], self._model.head, self._model.softcap)

    def _step(self) -> None:
        """Make one token for every active row."""
        rows = len(self._active)
        size = padded(rows)
        tokens = [request.last for request in self._active]
        filler = [0] * (size - rows)
        places = [request.place for request in self._active]
        try:
            self._gate.choose(places + filler)
            positions = self._cache.lengths[:rows] + filler
            states = self._model.hidden(tokens + filler, positions, Step(self._cache, rows))
            logits = next_logits(states, self._model.head, self._model.softcap)[:rows]
        except Exception as error:  # noqa: BLE001 - the step's requests fail, the server goes on
            self._fail(list(self._active), error)
            return
        for row in range(rows - 1, -1, -1):
            if self._take(self._active[row], logits[row]):
                self._free(row)

    def _take(self, request: _Request, logits: torch.Tensor) -> bool:
        """Choose a request's next token and send its text; return whether the request is over."""
        try:
            token = pick(logits, request.settings, request.generator)
            if not torch.isfinite(logits[token]):
                raise EngineFailed("the model gave numbers that are not finite")
            ended = token in self._model.chat.stop_tokens
            piece = "" if ended else request.writer.push(token)
        except Exception as error:  # noqa: BLE001 - this request's failure
            _LOG.error("a request failed while a token was chosen: %s", type(error).__name__)
            self._post.send(request.ticket, EngineFailed(type(error).__name__))
            return True
        request.last = token
        request.count += 1
        request.first = request.first or time.monotonic()
        if piece:
            self._post.send(request.ticket, piece)
        if ended or request.writer.stopped:
            self._end(request, "stop")
        elif request.count >= request.settings.max_new_tokens:
            self._end(request, "length")
        else:
            return False
        return True

    def _end(self, request: _Request, reason: Finish) -> None:
        now = time.monotonic()
        if reason != "cancelled" and (rest := request.writer.finish()):
            self._post.send(request.ticket, rest)
        if request.began:
            self._shared.spent += 0.2 * (now - request.began - self._shared.spent)
        finished = Finished(
            reason="stop" if request.writer.stopped and reason == "length" else reason,
            executed=self.loaded[request.place],
            prompt_tokens=len(request.tokens),
            completion_tokens=request.count,
            queued=(request.began or now) - request.asked,
            first=(request.first - request.asked) if request.first else None,
            seconds=now - request.asked,
        )
        self._post.send(request.ticket, finished)

    def _free(self, row: int) -> None:
        """Give a row back: the last active row takes its place, so that active rows stay together at the front."""
        last = len(self._active) - 1
        if row != last:
            # Emptied first: the row that moves in may be shorter than the one that was there.
            self._cache.clear(row)
            self._cache.move(last, row)
            self._active[row] = self._active[last]
        self._cache.clear(last)
        self._active.pop()

    def _fail(self, requests: Sequence[_Request], error: Exception) -> None:
        """Fail requests with an error that says no more than its type, and give their rows back empty."""
        _LOG.error("a step failed for %d requests: %s", len(requests), type(error).__name__)
        for request in requests:
            self._post.send(request.ticket, EngineFailed(type(error).__name__))
        for row in range(len(self._active) - 1, -1, -1):
            if self._active[row] in requests:
                self._cache.lengths[row] = self.context
                self._free(row)


def _check_release(release: Served, base: Base, chat: Chat) -> None:
    if release.base_digest != base.digest:
        what = f"the release {release.name} belongs to another base model ({release.base_digest[:12]}) than {base.name} ({base.digest[:12]})"
        raise ModelError(f"{what}\n    -> serve it with the base model it was trained on")
    template: Any = release.adapter / "chat_template.jinja"
    if template.is_file() and template.read_text(encoding="utf-8") != str(chat.tokenizer.chat_template):
        raise ModelError(f"{template} is not the chat template of {base.name}, so training and serving would differ\n    -> release the adapter again")
