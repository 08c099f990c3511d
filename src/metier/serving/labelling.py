"""One request for labels or spans, from the guard's look at its texts to the entry in the log: durable before the first byte of the answer leaves.

The answer to a request for labels has the form of vLLM's `/v1/classify`. No such form is common for spans.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from metier.errors import MetierError
from metier.events import Event, now
from metier.models import Prediction
from metier.models.labels import Labelling
from metier.records import Message
from metier.serving.desk import Desk, Labelled, TooLong
from metier.serving.guard import Inspected, language_of, place_before, said
from metier.serving.service import Service
from metier.serving.wire import LabelRequest, Refused
from metier.serving.work import Busy, EngineFailed

__all__ = ["TextLabelling"]

_Finish: TypeAlias = Literal["stop", "timeout", "error"]


class TextLabelling:
    """The work on one request; `name` is the server's name of it, `key` that of the key that was shown."""

    def __init__(self, service: Service, request: LabelRequest, *, route: str, name: str, key: str) -> None:
        """Raises Refused for a model that is not there, or that answers on another route."""
        desk, executed = service.desk, service.find(request.model, route)
        assert isinstance(desk, Desk)
        self._service, self._desk, self._executed = service, desk, executed
        self._labelling: Labelling = desk.labelling(request.model)
        self._name, self._key, self._subject = name, key, request.user or None
        given = [request.input] if isinstance(request.input, str) else request.input
        self._texts = [(item, None) if isinstance(item, str) else (item[0], item[1]) for item in given]
        self._check_pairs()
        self._seen: list[Inspected] = []
        self._began = time.monotonic()

    def _check_pairs(self) -> None:
        """Refuse texts without a second one where the model compares two, and with one where it marks spans."""
        task = self._labelling.task
        for place, (_, second) in enumerate(self._texts):
            if task == "pair" and second is None:
                what = f"input.{place} is one text, and this model says how well two belong together: give a list of [first, second]"
                raise Refused(400, what, param=f"input.{place}", code="invalid_value")
            if task == "tagging" and second is not None:
                raise Refused(400, f"input.{place} is a pair of texts, and spans are marked in one", param=f"input.{place}", code="invalid_value")

    async def answer(self) -> dict[str, Any]:
        """Return the document to send. Raises Refused for what gets no answer."""
        began = time.perf_counter()
        try:
            self._seen = await asyncio.to_thread(self._inspect)
        except MetierError:
            raise Refused(400, "the guard could not look at these texts", param="input", code="guard_failed") from None
        for seen in self._seen:
            self._service.count_question(seen, (time.perf_counter() - began) / len(self._seen))
        asked = [place for place, seen in enumerate(self._seen) if seen.refusal is None]
        labelled = await self._labelled(asked) if asked else None
        answers = dict(zip(asked, labelled.answers, strict=True)) if labelled else {}
        data = [self._item(place, answers.get(place)) for place in range(len(self._texts))]
        entry = await self._service.keep(self._event("stop", labelled, data))
        self._service.count_answer(labelled.finished if labelled else None, "stop", None)
        return self._document(data, labelled, entry)

    def _inspect(self) -> list[Inspected]:
        pairs = [[Message("user", text) for text in (first, second) if text is not None] for first, second in self._texts]
        return [self._service.guard.inspect(messages) for messages in pairs]

    async def _labelled(self, asked: Sequence[int]) -> Labelled:
        """Return what the model says to the texts of these places. What does not come in time, or fails, is put on record as such."""
        shown = [self._seen[place].messages for place in asked]
        texts, pairs = [item[0].content for item in shown], [item[1].content if len(item) > 1 else None for item in shown]
        try:
            result = asyncio.wrap_future(self._desk.submit(self._executed.name, texts, pairs))
            async with asyncio.timeout(self._service.settings.timeout):
                return await result
        except Busy as busy:
            raise Refused(429, "the queue is full", "rate_limit_error", code="queue_full", retry=busy.seconds) from None
        except TooLong as long:
            param = f"input.{asked[long.place]}"
            raise Refused(400, f"{param} has {long}; split it", param=param, code="context_length_exceeded") from None
        except TimeoutError:
            await self._service.keep(self._event("timeout", None, []))
            raise Refused(504, "the answer took too long", "server_error", code="timeout") from None
        except EngineFailed:
            await self._service.keep(self._event("error", None, []))
            raise Refused(500, "the model failed while it worked on this request", "server_error", code="engine_failed") from None

    # What is said of one text.

    def _item(self, place: int, given: Prediction | None) -> dict[str, Any]:
        item: dict[str, Any] = {"index": place}
        item |= self._spans(place, given) if self._labelling.task == "tagging" else self._labels(given)
        if (rule := self._seen[place].refusal) is not None:
            item["refusal"] = said(rule, language_of(self._texts[place][0]))
        return item

    def _labels(self, given: Prediction | None) -> dict[str, Any]:
        """Return vLLM's fields, with all labels that apply or the number beside them where the task has these."""
        task, classes = self._labelling.task, self._labelling.classes
        chances = list(given.probabilities) if given else []
        best = max(range(len(chances)), key=chances.__getitem__, default=None)
        item: dict[str, Any] = {"label": None if best is None else classes[best], "probs": chances, "num_classes": len(classes)}
        if task == "multi-label":
            item["labels"] = list(given.labels) if given else []
        elif task in ("regression", "pair"):
            item["value"] = given.value if given else None
        return item

    def _spans(self, place: int, given: Prediction | None) -> dict[str, Any]:
        """Return the spans by their places in the text as it came; their own text as the model saw it, where identifiers are replaced by their kind."""
        moved = self._seen[place].moved[0] if given else ()
        found = zip(given.spans, given.certainty, strict=True) if given else ()
        spans = [
            {"type": span.type, "start": place_before(span.start, moved), "end": place_before(span.end, moved, end=True), "text": span.text, "score": score}
            for span, score in found
        ]
        return {"spans": spans}

    # What is said of the request.

    def _usage(self, labelled: Labelled | None) -> dict[str, int]:
        tokens = labelled.finished.prompt_tokens if labelled else 0
        return {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}

    def _document(self, data: Sequence[Mapping[str, Any]], labelled: Labelled | None, entry: int) -> dict[str, Any]:
        ran = self._executed
        about = {"release": ran.release, "adapter": ran.adapter, "base": ran.base, "entry": entry, "guard": self._fired()}
        about |= {"task": self._labelling.task, "labels": list(self._labelling.labels), "disclaimers": list(dict.fromkeys(self._disclaimers()))}
        head = {"id": self._id, "object": "list", "created": int(time.time()), "model": ran.name}
        return {**head, "data": data, "usage": self._usage(labelled), "metier": about}

    @property
    def _id(self) -> str:
        return f"{'spans' if self._labelling.task == 'tagging' else 'classify'}-{self._name}"

    def _fired(self) -> list[str]:
        return list(dict.fromkeys(rule for seen in self._seen for rule in seen.fired))

    def _disclaimers(self) -> Iterator[str]:
        for (text, _), seen in zip(self._texts, self._seen, strict=True):
            yield from (said(rule, language_of(text)) for rule in seen.disclaimers)

    def _event(self, finish: _Finish, labelled: Labelled | None, data: Sequence[Mapping[str, Any]]) -> Event:
        ran, finished = self._executed, labelled.finished if labelled else None
        redacted: dict[str, int] = {}
        for seen in self._seen:
            for kind, count in seen.redacted.items():
                redacted[kind] = redacted.get(kind, 0) + count
        seconds = {"total": round(time.monotonic() - self._began, 6)} | ({} if finished is None else {"queued": round(finished.queued, 6)})
        facts: dict[str, Any] = {
            "id": self._id,
            "request": self._name,
            "phase": "answered",
            "key": self._key,
            **ran.as_facts(),
            "stream": False,
            "settings": {"task": self._labelling.task, "texts": len(self._texts)},
            "guard": {"rules": self._fired(), "redacted": redacted},
            "finish": finish,
            "executed": finished is not None,
            "usage": self._usage(labelled),
            "seconds": seconds,
            "opened": None,
        }
        # As the model saw them: a text that a rule refused is not kept, as no refused question is.
        body = {"input": [[message.content for message in seen.messages] for seen in self._seen], "answer": list(data)}
        return Event("prediction", f"key:{self._key}", now(), facts, body, self._subject)
