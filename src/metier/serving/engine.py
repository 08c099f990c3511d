"""Continuous batching: requests join and leave between the steps of a batch, several released adapters side by side.

One thread owns the models and their caches of keys and values: at most `rows` answers are written at a time, each of at most `context`
tokens. Low-rank adapters share one batch; an adapter of another method has a lane of its own (`metier.serving.lane`). A question is read
alone and each step is worked out by `metier.models.step`, so an answer does not depend on its neighbours. Every request names a release;
one that is not loaded is refused, never given to the base.
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
from metier.models.lorafile import lora_weights
from metier.models.methods import open_saved
from metier.models.precision import fastest_dtype
from metier.models.sampling import pick, seeded
from metier.models.saved import read_saved
from metier.models.stack import stack
from metier.models.twin import twin
from metier.records import Message
from metier.serving.lane import Lane, Request
from metier.serving.released import Executed, Served, check_base, check_names
from metier.serving.settings import ServingSettings
from metier.serving.text import Writer
from metier.serving.ticket import Finish, Finished, Post, Ticket
from metier.serving.work import Busy, EngineFailed, Load

__all__ = ["Engine"]

_LOG = logging.getLogger("metier.serving")
_PROMPT_TOKENS_A_STEP = 512
"""Questions of so many tokens in all are read between two steps (at least one question): a bound on how long answers stand still."""


@dataclass(slots=True)
class _Shared:
    """What the event loop and the engine's thread both touch, under one lock."""

    waiting: deque[Request] = field(default_factory=deque)
    stopping: bool = False
    spent: float = 1.0
    """Seconds that an answer takes from its row, smoothed."""


class Engine:
    """Generates answers of released adapters. Methods may be called from any thread; `start` and `stop` once."""

    def __init__(self, chat: Chat, lanes: Sequence[Lane], lane_of: Sequence[Lane], loaded: Sequence[Executed], settings: ServingSettings) -> None:
        """`lane_of[i]` is the lane of the release `loaded[i]`."""
        self.loaded = tuple(loaded)
        self.context = settings.context
        self.rows = settings.rows
        self._places = {item.name: place for place, item in enumerate(loaded)}
        self._chat = chat
        self._lanes = tuple(lanes)
        self._lane_of = tuple(lane_of)
        self._max_queue = settings.max_queue
        self._shared = _Shared()
        self._wake = threading.Condition()
        self._post = Post()
        # Encoding changes a tokenizer's state for a moment; the thread that decodes has its own.
        self._decoder = copy.deepcopy(chat.tokenizer)
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
        low_rank, lanes, loaded = [], {}, []
        for place, release in enumerate(releases):
            _check_release(release, base, chat)
            saved = read_saved(release.adapter, base=base.digest)
            for name, digest in saved.files.items():
                if release.files.get(name) != digest:
                    raise ModelError(f"{release.adapter / name} is not the file of the release {release.name}\n    -> restore the release folder")
            loaded.append(Executed(release.name, release.release_digest, release.adapter_digest, base.digest, saved.files["adapter_model.safetensors"]))
            if saved.kind == "LORA":
                low_rank.append((place, lora_weights(weights, saved)))
            else:
                own = twin(weights)
                model = LocalModel(own.eval(), chat, open_saved(own, saved))
                lanes[place] = Lane(model, [place], None, rows=settings.rows, context=settings.context)
        if low_rank:
            places = [place for place, _ in low_rank]
            gate = stack(weights, [adapter for _, adapter in low_rank])
            shared = Lane(LocalModel(weights.eval(), chat), places, gate, rows=settings.rows, context=settings.context)
            lanes.update(dict.fromkeys(places, shared))
        return cls(chat, list({id(lane): lane for lane in lanes.values()}.values()), [lanes[place] for place in range(len(releases))], loaded, settings)

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
        running, waiting = self._running, list(self._shared.waiting)
        return Load(len(running), len(waiting), self._names(running), self._names(waiting))

    @property
    def _running(self) -> list[Request]:
        return [request for lane in self._lanes for request in lane.active]

    def _names(self, requests: Sequence[Request]) -> tuple[str, ...]:
        return tuple(sorted({self.loaded[request.place].name for request in requests}))

    def find(self, name: str) -> Executed | None:
        """Return the release that is loaded under exactly this name."""
        place = self._places.get(name)
        return None if place is None else self.loaded[place]

    def longest(self, name: str) -> int:
        """Return how many tokens question and answer may have together, for any release."""
        del name
        return self.context

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of a question. Raises ModelError if the base model's chat template refuses the conversation."""
        with self._encoding:
            return self._chat.prompt(messages)

    def submit(self, name: str, tokens: Sequence[int], settings: GenerationSettings) -> Ticket:
        """Queue a question and return the ticket that its answer comes to; to be called on the event loop.

        Raises KeyError for a release that is not loaded, ValueError where question and answer do not fit into the context, Busy where the
        queue is full, EngineFailed where the engine has ended.
        """
        place = self._places[name]
        count = len(tokens) + self._lane_of[place].virtual
        if not tokens or count + settings.max_new_tokens > self.context:
            raise ValueError(f"{count} tokens and {settings.max_new_tokens} more do not fit into {self.context}")
        ticket = Ticket(self._cancelled)
        writer = Writer(self._decoder, settings.stop)
        request = Request(place, list(tokens), settings, ticket, writer, seeded(settings.seed), time.monotonic())
        with self._wake:
            if not self.alive:
                raise EngineFailed("the engine does not run")
            waiting = len(self._shared.waiting)
            if waiting >= max(self._max_queue, self.rows - len(self._running)):
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
                for lane in self._lanes:
                    if lane.active:
                        self._step(lane)
                self._post.flush()
        for request in [*self._running, *self._shared.waiting]:
            self._end(request, "cancelled")
        for lane in self._lanes:
            lane.active.clear()
        self._post.flush()

    def _wait(self) -> bool:
        """Sleep until there is something to do; return whether to go on."""
        with self._wake:
            while not (self._shared.stopping or self._running or self._shared.waiting):
                self._wake.wait()
            return not self._shared.stopping

    def _leave(self) -> None:
        """Take out what was cancelled, running or waiting."""
        for lane in self._lanes:
            for row in range(len(lane.active) - 1, -1, -1):
                if lane.active[row].ticket.cancelled:
                    self._end(lane.active[row], "cancelled")
                    lane.free(row)
        with self._wake:
            gone = [request for request in self._shared.waiting if request.ticket.cancelled]
            for request in gone:
                self._shared.waiting.remove(request)
        for request in gone:
            self._end(request, "cancelled")

    def _enter(self) -> None:
        """Read waiting questions into free rows, each alone."""
        budget = _PROMPT_TOKENS_A_STEP
        while len(self._running) < self.rows and budget > 0:
            with self._wake:
                if not self._shared.waiting:
                    return
                request = self._shared.waiting.popleft()
            budget -= len(request.tokens)
            lane = self._lane_of[request.place]
            lane.active.append(request)
            request.began = time.monotonic()
            try:
                logits = lane.read(request)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong here is this request's failure and not the server's
                self._fail(lane, [request], error)
                continue
            if self._take(request, logits[0]):
                lane.free(len(lane.active) - 1)

    def _step(self, lane: Lane) -> None:
        """Make one token for every active row of a lane."""
        try:
            logits = lane.step()
        except Exception as error:  # noqa: BLE001 - the step's requests fail, the server goes on
            self._fail(lane, list(lane.active), error)
            return
        for row in range(len(lane.active) - 1, -1, -1):
            if self._take(lane.active[row], logits[row]):
                lane.free(row)

    def _take(self, request: Request, logits: torch.Tensor) -> bool:
        """Choose a request's next token and send its text; return whether the request is over."""
        try:
            token = pick(logits, request.settings, request.generator)
            if not torch.isfinite(logits[token]):
                raise EngineFailed("the model gave numbers that are not finite")
            ended = token in self._chat.stop_tokens
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

    def _end(self, request: Request, reason: Finish) -> None:
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

    def _fail(self, lane: Lane, requests: Sequence[Request], error: Exception) -> None:
        """Fail requests with an error that says no more than its type, and give their rows back empty."""
        _LOG.error("a step failed for %d requests: %s", len(requests), type(error).__name__)
        for request in requests:
            self._post.send(request.ticket, EngineFailed(type(error).__name__))
        lane.drop(requests)


def _check_release(release: Served, base: Base, chat: Chat) -> None:
    check_base(release, base)
    template: Any = release.adapter / "chat_template.jinja"
    if template.is_file() and template.read_text(encoding="utf-8") != str(chat.tokenizer.chat_template):
        raise ModelError(f"{template} is not the chat template of {base.name}, so training and serving would differ\n    -> release the adapter again")
