"""How likely answers are under the base model, with their question and without it, kept on disk batch by batch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metier import models
from metier.digest import canonical_json, digest_of
from metier.models import Likelihood
from metier.prepare.quality.exchange import Exchange
from metier.store import whole_lines

__all__ = ["Asked", "Likely", "likely"]

_ANSWER_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class Likely:
    """Mean natural-log probability a token of an answer: after its question (None without one) and by itself."""

    given: float | None
    alone: float | None
    tokens: int

    @property
    def perplexity(self) -> float | None:
        """Perplexity of the answer by itself."""
        return None if self.alone is None else math.exp(min(-self.alone, 50.0))

    @property
    def gain(self) -> float | None:
        """How much the question tells of the answer, nats a token: pointwise mutual information by the answer's length."""
        return None if self.given is None or self.alone is None else self.given - self.alone


def likely(model: Any, exchanges: Sequence[Exchange]) -> list[Likely]:
    """Ask a model for one batch: texts are packed, nothing is padded. Answers count up to their first 4,000 characters."""
    answers = [(found.last or found.answer)[:_ANSWER_CHARACTERS] for found in exchanges]
    alone = models.text_likelihoods(model, answers)
    paired = [index for index, found in enumerate(exchanges) if found.prompt and answers[index]]
    given: dict[int, list[Likelihood]] = {}
    if paired:
        asked = model.choose([exchanges[index].prompt for index in paired], [[answers[index]] for index in paired])
        given = dict(zip(paired, asked, strict=True))
    return [Likely(_mean(given[index][0]) if index in given else None, _mean(alone[index]), alone[index].tokens) for index in range(len(exchanges))]


def _mean(found: Likelihood) -> float | None:
    return found.log_probability / found.tokens if found.tokens and math.isfinite(found.log_probability) else None


class Asked:
    """The likelihoods that a model gave so far, in a file to which each batch is flushed before the next.

    What was kept for another model or for other texts is asked again; a torn last line (a kill in the middle of a write) is cut off.
    """

    def __init__(self, model: Any, path: Path, *, salt: str) -> None:
        """Read what `path` holds; `salt` stands for the model."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._model, self._path, self._salt = model, path, salt
        self._known = _finished(path)

    def ask(self, exchanges: Sequence[Exchange]) -> list[Likely]:
        """Return the likelihood of each answer, asking the model only for what is not kept yet."""
        keys = [digest_of([self._salt, [[message.role, message.content] for message in found.prompt], found.last, found.answer])[:24] for found in exchanges]
        waiting = {key: found for key, found in zip(keys, exchanges, strict=True) if key not in self._known}
        if waiting:
            lines = []
            for key, known in zip(waiting, likely(self._model, list(waiting.values())), strict=True):
                self._known[key] = known
                lines.append(canonical_json({"key": key, "given": known.given, "alone": known.alone, "tokens": known.tokens}) + b"\n")
            with self._path.open("ab") as stream:
                stream.write(b"".join(lines))
                stream.flush()
                os.fsync(stream.fileno())
        return [self._known[key] for key in keys]


def _finished(path: Path) -> dict[str, Likely]:
    found: dict[str, Likely] = {}
    for line in whole_lines(path):
        try:
            row: Mapping[str, Any] = json.loads(line)
            found[row["key"]] = Likely(row["given"], row["alone"], row["tokens"])
        except (ValueError, KeyError, TypeError):
            continue
    return found
