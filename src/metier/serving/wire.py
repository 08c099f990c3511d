"""What goes over the wire: OpenAI's chat completions and requests for labels, read strictly, and OpenAI's form of errors.

A key that would change what is answered and is not supported is refused by name; keys that OpenAI's clients send and that change
nothing are taken; every other key is unknown. A key whose value is null is as if it were not there.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from metier.errors import nearest
from metier.models import GenerationSettings
from metier.records import Message

__all__ = ["ChatRequest", "LabelRequest", "Refused", "error_body", "parse_chat", "parse_labels", "to_messages", "to_settings"]

HARMLESS = frozenset({"metadata", "prompt_cache_key", "safety_identifier", "service_tier", "store"})
"""Keys that are taken and change nothing. What is kept of a request is the log's entry, whatever `store` says."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none",),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "reasoning_effort": ("none",),
    "audio": (),
    "prediction": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Keys that are known and not supported, with the values that ask for nothing."""

_SEED = 2**63 - 1
_SHOWN = 64


class Refused(Exception):
    """A request that gets an error instead of an answer, in OpenAI's form."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None, retry: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(message, kind, param, code)
        self.headers = {} if retry is None else {"retry-after": str(retry)}


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return an error as OpenAI's API writes it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TextPart(_Wire):
    """A part of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class ChatMessage(_Wire):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1, max_length=64)]
    name: Annotated[str, Field(max_length=64)] | None = None


class StreamOptions(_Wire):
    """`stream_options` of a request."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


_Text: TypeAlias = Annotated[str, Field(min_length=1, pattern=r"\S")]
_Pair: TypeAlias = Annotated[list[_Text], Field(min_length=2, max_length=2)]
_Stop: TypeAlias = Annotated[str, Field(min_length=1, max_length=64)]


class ChatRequest(_Wire):
    """Body of a chat completion."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    seed: Annotated[int, Field(ge=-_SEED - 1, le=_SEED)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=256)] | None = None


class LabelRequest(_Wire):
    """Body of a request for labels or spans: a text, several, or pairs of a text and a second one."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    input: _Text | Annotated[list[_Text | _Pair], Field(min_length=1)]
    user: Annotated[str, Field(max_length=256)] | None = None


def parse_chat(body: bytes, *, most_messages: int) -> ChatRequest:
    """Read the body of a chat completion. Raises Refused (400) that names the key at fault."""
    document = _document(body, ChatRequest, known=NEUTRAL)
    messages = document.get("messages")
    if isinstance(messages, list) and len(messages) > most_messages:
        raise Refused(400, f"{len(messages)} messages are more than the {most_messages} that are allowed", param="messages", code="too_many_messages")
    try:
        return ChatRequest.model_validate(document)
    except ValidationError as error:
        raise _invalid(error) from None


def parse_labels(body: bytes, *, most_texts: int) -> LabelRequest:
    """Read the body of a request for labels or spans. Raises Refused (400) that names the key at fault."""
    document = _document(body, LabelRequest)
    given = document.get("input")
    if isinstance(given, list) and len(given) > most_texts:
        raise Refused(400, f"{len(given)} texts are more than the {most_texts} that are allowed", param="input", code="too_many_inputs")
    try:
        return LabelRequest.model_validate(document)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        if found[0]["loc"][:1] != ("input",) or found[0]["type"] == "missing":
            raise _invalid(error) from None
        # Each form that input can have has its own faults; the one that lies inside of the list is the one that was meant.
        inner = next((part for fault in found for part in fault["loc"] if isinstance(part, int)), None)
        place = "input" if inner is None else f"input.{inner}"
        what = "a text that is not empty, or a list of such texts; of pairs, a list of [first, second]"
        raise Refused(400, f"{place} is not what it has to be: input is {what}", param=place, code="invalid_value") from None


def _document(body: bytes, kind: type[_Wire], known: Mapping[str, tuple[Any, ...]] | None = None) -> dict[str, Any]:
    """Return what a body says under the keys of a request; `known` keys are taken with the values that ask for nothing."""
    try:
        # Strict JSON: nesting is limited, lone surrogates, NaN and anything after the document are errors.
        document = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refused(400, f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(document, dict):
        raise Refused(400, "the body has to be a JSON object", code="invalid_json")
    document = {key: value for key, value in document.items() if value is not None}
    _check_keys(document, kind, known or {})
    return {key: value for key, value in document.items() if key in kind.model_fields}


def _invalid(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in _NAMES) or None
    return Refused(400, f"{place or 'the body'}: {first['msg']}", param=place, code="invalid_value")


_NAMES = {name for kind in (ChatRequest, ChatMessage, TextPart, StreamOptions, LabelRequest) for name in kind.model_fields}


def _check_keys(document: Mapping[str, Any], kind: type[_Wire], known: Mapping[str, tuple[Any, ...]]) -> None:
    for key, value in document.items():
        if key in known:
            if not any(type(value) is type(item) and value == item for item in (*known[key], *([0.0] if 0 in known[key] else []))):
                raise Refused(400, f"{key} is not supported with this value", param=key, code="unsupported_parameter")
        elif key not in kind.model_fields and key not in HARMLESS:
            shown = visible(key)
            raise Refused(400, f"unknown key {shown!r}: {nearest(shown, list(kind.model_fields))}", param=shown, code="unknown_parameter")


def visible(text: str) -> str:
    """Return a client's text short and without characters that steer a terminal or a log."""
    return "".join(char if char.isprintable() else "?" for char in text[:_SHOWN])


def to_messages(request: ChatRequest) -> list[Message]:
    """Return a request's messages as every other room knows them; `developer` is `system` by its newer name."""
    messages = []
    for message in request.messages:
        text = message.content if isinstance(message.content, str) else "".join(part.text for part in message.content)
        messages.append(Message("system" if message.role == "developer" else message.role, text))
    return messages


def to_settings(request: ChatRequest, *, most_tokens: int) -> GenerationSettings:
    """Return how an answer is sampled: as OpenAI does by default, temperature 1. A request without a seed gets a random one, which is kept.

    Raises Refused (400) for more tokens than are allowed.
    """
    limits = {"max_tokens": request.max_tokens, "max_completion_tokens": request.max_completion_tokens}
    for key, value in limits.items():
        if value is not None and value > most_tokens:
            raise Refused(400, f"{key} is {value}, and at most {most_tokens} are allowed", param=key, code="invalid_value")
    wanted = [value for value in limits.values() if value is not None]
    stop: Sequence[str] = [request.stop] if isinstance(request.stop, str) else request.stop or ()
    return GenerationSettings(
        max_new_tokens=min(wanted, default=most_tokens),
        temperature=1.0 if request.temperature is None else request.temperature,
        top_p=1.0 if request.top_p is None else request.top_p,
        seed=secrets.randbelow(2**31) if request.seed is None else request.seed,
        stop=tuple(stop),
    )
