"""Takes personal identifiers out of the messages of a conversation and knows how to put them back.

The table of originals lives in memory, for one conversation. A token is `[KIND_code]`, its code a keyed hash of the value, so that
the same value has the same token in every turn while the process lives, without anything being kept between the turns.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metier.errors import PrivacyError
from metier.privacy.detect import Tagger, detector
from metier.privacy.gateway.restore import Restorer
from metier.privacy.names import taggers_for
from metier.privacy.once import AUTO, language_of, rules_for_policy
from metier.privacy.policy import Policy, Treatment
from metier.privacy.sweeping import second_sweep, sweep
from metier.records import Span

__all__ = ["Conversation", "redact"]

_OUTSIDE = Policy(policy="outside", default=Treatment(action="token", clause="nothing that names a person goes outside"))
_KEY_OF_THIS_PROCESS = secrets.token_bytes(32)
_CODE_BYTES = 5
_STRUCTURE = frozenset({"role", "type", "model", "id", "object", "finish_reason", "index", "tool_call_id", "format", "detail", "tool_choice"})
"""Keys whose values are words of the protocol."""
_MEDIA = frozenset({"image_url", "input_image", "input_audio", "audio", "file", "input_file", "video_url"})
"""Parts that no rule can look into."""


@dataclass(frozen=True, slots=True)
class _Place:
    new_start: int
    new_end: int
    action: str = "token"


@dataclass(slots=True)
class Conversation:
    """The originals of one conversation, in memory only. `key` makes the codes of tokens."""

    language: str | None = AUTO
    pack: str | None = None
    taggers: Sequence[Tagger] | None = None
    """Who looks for names; None: those of metier.privacy.names for the language."""
    key: bytes = field(default=_KEY_OF_THIS_PROCESS, repr=False)
    originals: dict[str, str] = field(default_factory=dict, repr=False)
    """Token -> what it stands for."""

    def redacted(self, texts: Sequence[str]) -> list[str]:
        """Return texts with a token in the place of every identifier. Raises PrivacyError where something is left; send nothing then."""
        identifiers, validators = rules_for_policy(self.pack, _OUTSIDE)
        language = language_of("\n".join(texts)) if self.language == AUTO else self.language
        taggers = tuple(taggers_for(language) if self.taggers is None else self.taggers)
        rules = detector(identifiers, language=language, validators=validators, taggers=taggers)
        found = rules.record(texts)
        made = [self._write(text, spans, texts) for text, spans in zip(texts, found, strict=True)]
        outputs, places = [text for text, _ in made], [here for _, here in made]
        sweep(outputs, places, found, rules)
        second_sweep(outputs, places, found)
        return outputs

    def _write(self, text: str, spans: Sequence[Span], texts: Sequence[str]) -> tuple[str, list[_Place]]:
        parts: list[str] = []
        places: list[_Place] = []
        end = length = 0
        for span in spans:
            token = self._token(span, texts)
            parts += [text[end : span.start], token]
            length += span.start - end
            places.append(_Place(length, length + len(token)))
            length += len(token)
            end = span.end
        return "".join([*parts, text[end:]]), places

    def _token(self, span: Span, texts: Sequence[str]) -> str:
        """Return the token of a value; two writings of a value have two, so that each comes back as it was written."""
        for attempt in range(8):
            code = hmac.digest(self.key, f"{span.type}\0{span.text}\0{attempt}".encode(), hashlib.sha256)[:_CODE_BYTES]
            token = f"[{span.type}_{base64.b32encode(code).decode().rstrip('=').lower()}]"
            # A token that stands in the text already, as text, would be "restored" as well.
            taken = self.originals.get(token, span.text) != span.text or (token not in self.originals and any(token in text for text in texts))
            if not taken:
                self.originals[token] = span.text
                return token
        raise PrivacyError("no token is free for a value of the conversation")

    def restored(self, text: str) -> str:
        """Return a text with its tokens replaced by what they stand for."""
        restorer = Restorer(self.originals)
        return restorer.push(text) + restorer.finish()

    def redact_value(self, value: Any) -> Any:
        """Return a JSON value (a request) with every text in it redacted. Raises PrivacyError for parts that cannot be looked into."""
        found = list(_texts(value, ()))
        rest = iter(self.redacted(found)) if found else iter(())
        return _rebuilt(value, rest)

    def restore_value(self, value: Any, *, key: str = "") -> Any:
        """Return a JSON value (an answer) with every token replaced; texts under `arguments` are JSON themselves."""
        if isinstance(value, str):
            restorer = Restorer(self.originals, quoted=key == "arguments")
            return restorer.push(value) + restorer.finish()
        if isinstance(value, dict):
            return {name: self.restore_value(item, key=name) for name, item in value.items()}
        return [self.restore_value(item, key=key) for item in value] if isinstance(value, list) else value


def redact(
    messages: Sequence[Mapping[str, Any]],
    *,
    language: str | None = AUTO,
    pack: str | None = None,
    taggers: Sequence[Tagger] | None = None,
) -> tuple[list[dict[str, Any]], Callable[[str], str]]:
    """Return messages (OpenAI's form) without personal identifiers, and the function that puts the originals into an answer.

    ::

        safe, restore = redact([{"role": "user", "content": question}])
        answer = restore(ask_a_model_outside(safe))

    Raises PrivacyError where an identifier could not be taken out with certainty, or a part is a picture, sound or file.
    """
    conversation = Conversation(language=language, pack=pack, taggers=taggers)
    return conversation.redact_value([dict(message) for message in messages]), conversation.restored


def _texts(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, str):
        if not path or path[-1] not in _STRUCTURE:
            yield value
    elif isinstance(value, dict):
        if media := sorted(_MEDIA & value.keys()) or ([value["type"]] if value.get("type") in _MEDIA else []):
            raise PrivacyError(f"a part of the conversation is {media[0]}, which cannot be searched for personal data\n    -> send text only")
        for name, item in value.items():
            yield from _texts(item, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, path)


def _rebuilt(value: Any, rest: Iterator[str], key: str = "") -> Any:
    if isinstance(value, str):
        return value if key in _STRUCTURE else next(rest)
    if isinstance(value, dict):
        return {name: _rebuilt(item, rest, name) for name, item in value.items()}
    return [_rebuilt(item, rest, key) for item in value] if isinstance(value, list) else value
