"""Who writes text on demand: the local base model, or an endpoint that speaks OpenAI's protocol. Tests script one (metier.testing)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import Field

from metier.config import Settings
from metier.digest import digest_of
from metier.errors import Fault, InputError, MissingExtra, ModelError
from metier.models.interface import GenerationSettings, LanguageModel
from metier.records import Message

__all__ = ["EndpointSettings", "EndpointWriter", "LocalWriter", "Writer", "Written"]

_AGAIN = (408, 429, 500, 502, 503, 504)
"""HTTP answers after which the same request may succeed (RFC 9110, 15.5 and 15.6; RFC 6585, 4)."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a writer wrote, and whether it came to an end by itself: else it was cut at its greatest length."""

    text: str
    whole: bool = True

    def first_line(self) -> Written:
        """Return the first line that says something, where one line was asked for: what a model adds below it is nobody's business."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return Written(lines[0], self.whole or len(lines) > 1) if lines else Written("", self.whole)


class Writer(Protocol):
    """Writes an answer to each prompt. `name` and `digest` say who wrote; `leaves` whether the prompts leave this machine."""

    name: str
    digest: str
    leaves: bool

    def write(self, prompts: Sequence[Sequence[Message]], *, maximum_tokens: int, temperature: float, seed: int) -> list[Written]:
        """Return one text a prompt, in order."""


class EndpointSettings(Settings):
    """An endpoint that speaks OpenAI's chat protocol. Naming one is what sends data there: only text that was de-identified goes."""

    url: str = Field(pattern=r"^https?://")
    """Address up to and with the version, for instance `https://host/v1`."""
    model: str
    """Name of the model there."""
    key_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key; the key itself never stands in a file."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds that one answer may take."""
    tries: int = Field(default=4, ge=1, le=10)
    """Requests for one answer, with growing pauses, before the work stops."""
    parallel: int = Field(default=4, ge=1, le=64)
    """Requests at a time."""


class LocalWriter:
    """The model of this machine; nothing leaves it.

    A text ends where one of `stop` begins. A base model that was never taught to converse needs it: it does not end a turn, and goes on with turns and
    passages of its own making until it is cut.
    """

    leaves = False

    def __init__(self, model: LanguageModel, *, name: str, digest: str, stop: tuple[str, ...] = ()) -> None:
        self._model, self.name, self.digest, self._stop = model, name, digest, stop

    def write(self, prompts: Sequence[Sequence[Message]], *, maximum_tokens: int, temperature: float, seed: int) -> list[Written]:
        """Return one text a prompt; the same seed gives the same texts for the same list of prompts."""
        settings = GenerationSettings(max_new_tokens=maximum_tokens, temperature=temperature, top_p=0.95 if temperature else 1.0, seed=seed, stop=self._stop)
        return [Written(answer.text, answer.finish == "stop") for answer in self._model.generate(prompts, settings)]


class EndpointWriter:
    """A model behind an endpoint of OpenAI's chat protocol."""

    leaves = True

    def __init__(self, settings: EndpointSettings, *, deidentified: bool) -> None:
        """Raise InputError if the text was not de-identified or the key is not there, MissingExtra without httpx."""
        if not deidentified:
            remedy = "switch de-identification on, or use the local model"
            raise InputError(Fault("an endpoint gets text that was de-identified only", key="endpoint", remedy=remedy))
        key = os.environ.get(settings.key_variable, "") if settings.key_variable else ""
        if settings.key_variable and not key:
            remedy = f"set it where the command runs: {settings.key_variable}=..."
            raise InputError(Fault(f"the environment variable {settings.key_variable} is not set", key="endpoint.key_variable", remedy=remedy))
        try:
            import httpx
        except ImportError:
            raise MissingExtra("httpx", "write", "a writer behind an endpoint") from None
        self._failure: type[Exception] = httpx.HTTPError
        self._settings = settings
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(base_url=settings.url.rstrip("/") + "/", timeout=settings.timeout, headers=headers, trust_env=False)
        self.name = f"{settings.model} at {settings.url}"
        self.digest = digest_of({"url": settings.url, "model": settings.model})

    def write(self, prompts: Sequence[Sequence[Message]], *, maximum_tokens: int, temperature: float, seed: int) -> list[Written]:
        """Return one text a prompt, in order. Raises ModelError that says what the endpoint answered; the prompts are never shown."""
        bodies = [self._body(prompt, maximum_tokens, temperature, seed) for prompt in prompts]
        with ThreadPoolExecutor(max_workers=self._settings.parallel) as pool:
            return list(pool.map(self._ask, bodies))

    def _body(self, prompt: Sequence[Message], maximum_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        return {"model": self._settings.model, "messages": messages, "max_tokens": maximum_tokens, "temperature": temperature, "seed": seed}

    def _ask(self, body: dict[str, Any]) -> Written:
        said = ""
        for attempt in range(self._settings.tries):
            if attempt:
                time.sleep(min(2.0 ** (attempt - 1), 30.0))
            try:
                answer = self._client.post("chat/completions", json=body)
            except self._failure as error:
                said = type(error).__name__
                continue
            if answer.status_code == 200:
                return self._written(answer)
            said = f"HTTP {answer.status_code}"
            if answer.status_code not in _AGAIN:
                break
        raise ModelError(f"the endpoint {self._settings.url} does not answer ({said})\n    -> check address, model name and key; finished work is kept")

    def _written(self, answer: Any) -> Written:
        try:
            choice = answer.json()["choices"][0]
            content, finish = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ModelError(f"the endpoint {self._settings.url} answers in another form than OpenAI's chat protocol\n    -> check the address") from None
        return Written(str(content or "").strip(), finish != "length")
