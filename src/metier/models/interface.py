"""What other rooms ask of a language model. The real one is `metier.models.LocalModel`; tests may script one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from metier.progress import SILENT, Progress
from metier.records import Message

__all__ = ["Generation", "GenerationSettings", "LanguageModel", "Likelihood"]


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated answer, how many tokens it took and why it ended."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Natural-log probability of a text after a prompt, summed over its tokens (its end-of-turn token included)."""

    log_probability: float
    tokens: int


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How answers are sampled; `temperature` 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


class LanguageModel(Protocol):
    """A base model with an optional adapter."""

    def generate(
        self,
        prompts: Sequence[Sequence[Message]],
        settings: GenerationSettings,
        *,
        progress: Progress = SILENT,
        task: str = "generate",
    ) -> list[Generation]:
        """Answer each conversation. Reports one unit a prompt to `progress` under `task`, which the caller starts."""

    def choose(
        self,
        prompts: Sequence[Sequence[Message]],
        choices: Sequence[Sequence[str]],
        *,
        progress: Progress = SILENT,
        task: str = "choose",
    ) -> list[list[Likelihood]]:
        """Return the likelihood of each of `choices[i]` as the answer to `prompts[i]`; without a prompt they are plain texts, read by themselves."""

    def without_adapter(self) -> AbstractContextManager[None]:
        """Switch the adapter off inside the `with` block: the exact base model, no second copy."""
