"""Text from tokens, piece by piece: never half a character, never part of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Writer"]

_UNKNOWN = "\ufffd"


class Writer:
    """Turns the tokens of one answer into text as they come.

    All pieces together are the text of all tokens, stripped of white space and of a last character that never became whole.

    A piece that ends in the replacement character may be the beginning of a longer character, so that end is kept back until more
    tokens decide it. Tokens are decoded behind an ASCII anchor: what a decoder does to the start of a text is done to the anchor, and
    a new piece never runs together with bytes before it.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(item for item in stop if item)
        self._anchor: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._skipped = len(self._decode([]))
        self._tokens: list[int] = []
        self._sent = 0
        self._held = ""
        self._begun = False
        self.stopped = False
        """Whether a stop string has come; nothing is written after it."""

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode([*self._anchor, *tokens], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def push(self, token: int) -> str:
        """Take the next token and return the text that is certain now, often empty."""
        self._tokens.append(token)
        text = self._decode(self._tokens)[self._skipped :]
        certain = text.rstrip(_UNKNOWN)
        piece, self._sent = certain[self._sent :], max(self._sent, len(certain))
        if len(certain) == len(text):
            self._tokens, self._sent = [], 0
        return self._write(piece, last=False)

    def finish(self) -> str:
        """Return what was kept back, at the end of the answer."""
        rest = self._decode(self._tokens)[self._skipped + self._sent :] if self._tokens else ""
        self._tokens, self._sent = [], 0
        return self._write(rest.rstrip(_UNKNOWN), last=True)

    def _write(self, piece: str, *, last: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + piece
        cut = min((place for place in (text.find(stop) for stop in self._stop) if place >= 0), default=None)
        if cut is not None:
            self.stopped = last = True
            text = text[:cut]
        end = len(text) if last else len(text) - max((_begun(text, stop) for stop in self._stop), default=0)
        # White space at either end of an answer is no part of it; inside, it is written once something follows.
        ready = text[:end].rstrip()
        self._held = text[len(ready) :]
        if not self._begun:
            ready = ready.lstrip()
            self._begun = bool(ready)
        return ready


def _begun(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` may be the beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
