"""Restores an answer that streams in as server-sent events (`data: {...}`), however its bytes and tokens are cut."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from metier.privacy.gateway.conversation import Conversation
from metier.privacy.gateway.restore import Restorer

__all__ = ["EventStream"]

_DONE = b"[DONE]"


class EventStream:
    """One streamed answer. `push` bytes as they come and pass on what it returns; at the end what `finish` returns.

    Every text field of every choice has its own restorer. What one of them still holds when its choice ends is sent in an event of
    the same form before that end.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._rest = b""
        self._restorers: dict[tuple[Any, ...], Restorer] = {}
        self._frames: dict[tuple[Any, ...], dict[str, Any]] = {}

    def push(self, data: bytes) -> bytes:
        """Take bytes of the upstream answer and return events that may be sent now."""
        self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        return b"".join(part for line in lines for part in self._line(line.rstrip(b"\r")))

    def finish(self) -> bytes:
        """Return what is left: a last line without an end, and texts that were held back."""
        line, self._rest = self._rest, b""
        out = b"".join(self._line(line)) if line else b""
        return out + self._flushed()

    def _line(self, line: bytes) -> Iterator[bytes]:
        name, _, content = line.partition(b":")
        content = content.strip()
        if name != b"data":
            # Events, comments and the empty lines between them hold nothing of the model's.
            if not line or name in (b"event", b"id", b"retry"):
                yield line + b"\n"
            return
        if content == _DONE:
            yield self._flushed() + b"data: [DONE]\n"
            return
        event = json.loads(content)
        ending = {choice.get("index", 0) for choice in event.get("choices", []) if choice.get("finish_reason") is not None}
        restored = self._event(event, (), ending, event)
        for choice in sorted(ending):
            yield self._flushed(choice)
        yield b"data: " + _encoded(restored) + b"\n"

    def _event(self, value: Any, path: tuple[Any, ...], ending: set[int], frame: dict[str, Any]) -> Any:
        """Return an event with its texts passed through the restorers of their places; those of a choice that ends give all they hold."""
        if isinstance(value, dict):
            return {name: self._event(item, (*path, name), ending, frame) for name, item in value.items()}
        if isinstance(value, list):
            places = [item.get("index", number) if isinstance(item, dict) else number for number, item in enumerate(value)]
            return [self._event(item, (*path, place), ending, frame) for place, item in zip(places, value, strict=True)]
        if not isinstance(value, str) or not {"delta", "text"} & set(path):
            return value
        if path not in self._restorers:
            self._restorers[path] = Restorer(self._conversation.originals, quoted=path[-1] == "arguments")
        self._frames[path] = {name: item for name, item in frame.items() if name not in ("choices", "usage")}
        restorer = self._restorers[path]
        last = path[0] == "choices" and path[1] in ending
        return restorer.push(value) + (restorer.finish() if last else "")

    def _flushed(self, choice: Any = None) -> bytes:
        """Return events with what restorers still hold, those of one choice or all."""
        out = []
        for path, restorer in self._restorers.items():
            if choice is not None and path[:2] != ("choices", choice):
                continue
            if held := restorer.finish():
                out.append(b"data: " + _encoded({**self._frames.get(path, {}), **_nested(path, held)}) + b"\n\n")
        return b"".join(out)


def _nested(path: tuple[Any, ...], text: str) -> dict[str, Any]:
    """Return the event whose only text is `text` at `path`; a number in the path is the index of an item in a list."""
    value: Any = text
    for part in reversed(path):
        inside = {"index": part, **value} if isinstance(part, int) and isinstance(value, dict) else value
        value = [inside] if isinstance(part, int) else {part: value}
    made: dict[str, Any] = value
    return made


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
