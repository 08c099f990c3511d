"""A base model with an optional adapter on this machine: generation and likelihoods, batched without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from metier.models.attention import Cache, Decode, Packed, Plan, Prefill
from metier.models.base import Base
from metier.models.body import hidden_states
from metier.models.chat import Chat
from metier.models.head import next_logits, token_log_probabilities
from metier.models.interface import Generation, GenerationSettings, Likelihood
from metier.models.load import load_weights
from metier.models.methods import Tuned, open_adapter
from metier.models.precision import fastest_dtype
from metier.models.sampling import pick, seeded
from metier.models.tokenizer import load_tokenizer
from metier.progress import SILENT, Progress
from metier.records import Message

__all__ = ["LocalModel"]

_WINDOW = 1024
"""Tokens of a plain text that are read at a time: what a window's first tokens lack in context is the same for every model that is compared."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What is read at once for a prompt: its tokens, and those of its choices from the `first` on; `last`: nothing more is read for it."""

    prompt: int
    first: int
    head: Sequence[int]
    tails: Sequence[Sequence[int]]
    last: bool


class LocalModel:
    """A loaded model; see `metier.models.interface.LanguageModel` for what it answers."""

    def __init__(
        self, model: torch.nn.Module, chat: Chat, tuned: Tuned | None = None, *, device: str = "cpu", batch_tokens: int = 4096, batch_rows: int = 32
    ) -> None:
        self.model: Any = model
        self.tuned = tuned
        self.chat = chat
        self.device = device
        self.batch_tokens = batch_tokens
        self.batch_rows = batch_rows
        self.softcap = getattr(self.model.config, "final_logit_softcapping", None)

    @classmethod
    def open(cls, base: Base, adapter: Path | None = None, *, device: str = "cpu", dtype: torch.dtype | None = None) -> LocalModel:
        """Load a base model and, if given, an adapter folder. Raises ModelError if either cannot be used."""
        model = load_weights(base, dtype or fastest_dtype(device))
        tuned = None if adapter is None else open_adapter(model, adapter, base=base.digest)
        chat = Chat(load_tokenizer(base), virtual=0 if tuned is None else tuned.virtual)
        return cls(model.to(device).eval(), chat, tuned, device=device)

    @property
    def head(self) -> torch.Tensor:
        """The output head's weights [vocabulary, hidden]."""
        weights: torch.Tensor = self.model.get_output_embeddings().weight
        return weights

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Switch the adapter off inside the block: the exact base model."""
        if self.tuned is None:
            yield
            return
        self.tuned.enable(False)
        virtual, self.chat.virtual = self.chat.virtual, 0
        try:
            yield
        finally:
            self.tuned.enable(True)
            self.chat.virtual = virtual

    def hidden(self, tokens: Sequence[int], positions: Sequence[int], plan: Plan) -> torch.Tensor:
        """Return the last hidden states [tokens, hidden] of a packed row."""
        ids, places = (torch.tensor(list(numbers), device=self.device) for numbers in (tokens, positions))
        return hidden_states(self.model.get_decoder(), ids, places, plan)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[Message]], settings: GenerationSettings, *, progress: Progress = SILENT, task: str = "generate"
    ) -> list[Generation]:
        """Answer each conversation, several at a time; the answer to one does not depend on the others' sampling."""
        encoded = [self.chat.prompt(prompt) for prompt in prompts]
        answers: dict[int, Generation] = {}
        for batch in self._batches([len(tokens) for tokens in encoded]):
            answers.update(zip(batch, self._generate([encoded[index] for index in batch], batch, settings), strict=True))
            progress.advance(task, len(batch))
        return [answers[index] for index in range(len(prompts))]

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Yield indices in batches of at most `batch_rows` rows and `batch_tokens` tokens, similar lengths together."""
        batch: list[int] = []
        total = 0
        for index in sorted(range(len(lengths)), key=lambda item: lengths[item]):
            if batch and (len(batch) == self.batch_rows or total + lengths[index] > self.batch_tokens):
                yield batch
                batch, total = [], 0
            batch.append(index)
            total += lengths[index]
        if batch:
            yield batch

    def _generate(self, prompts: Sequence[Sequence[int]], names: Sequence[int], settings: GenerationSettings) -> list[Generation]:
        lengths = [len(prompt) for prompt in prompts]
        cache = Cache(len(prompts), max(lengths) + settings.max_new_tokens)
        states = self.hidden([token for prompt in prompts for token in prompt], _positions(lengths), Prefill(lengths, cache))
        last = torch.tensor(lengths).cumsum(0) - 1
        generators = [seeded(settings.seed, name) for name in names]
        written: list[list[int]] = [[] for _ in prompts]
        rows, logits = list(range(len(prompts))), next_logits(states[last], self.head, self.softcap)
        while rows:
            chosen = [pick(logits[place], settings, generators[row]) for place, row in enumerate(rows)]
            rows, chosen = self._append(rows, chosen, written, settings)
            if not rows:
                break
            plan = Decode(cache, rows)
            states = self.hidden(chosen, [cache.lengths[row] - 1 for row in rows], plan)
            logits = next_logits(states, self.head, self.softcap)
        return [self._finished(tokens, settings) for tokens in written]

    def _append(self, rows: Sequence[int], chosen: Sequence[int], written: list[list[int]], settings: GenerationSettings) -> tuple[list[int], list[int]]:
        going = []
        for row, token in zip(rows, chosen, strict=True):
            written[row].append(token)
            stopped = token in self.chat.stop_tokens or len(written[row]) >= settings.max_new_tokens
            if not stopped and settings.stop:
                text = self.chat.tokenizer.decode(written[row], skip_special_tokens=True)
                stopped = any(stop in text for stop in settings.stop)
            if not stopped:
                going.append((row, token))
        return [row for row, _ in going], [token for _, token in going]

    def _finished(self, tokens: list[int], settings: GenerationSettings) -> Generation:
        text = self.chat.tokenizer.decode(tokens, skip_special_tokens=True)
        cut = min((text.index(stop) for stop in settings.stop if stop in text), default=None)
        ended = tokens[-1] in self.chat.stop_tokens or cut is not None
        return Generation(text[:cut].strip(), len(tokens), "stop" if ended else "length")

    @torch.inference_mode()
    def choose(
        self, prompts: Sequence[Sequence[Message]], choices: Sequence[Sequence[str]], *, progress: Progress = SILENT, task: str = "choose"
    ) -> list[list[Likelihood]]:
        """Return each choice's likelihood. A prompt is read once for all its choices, which do not see each other.

        Without a prompt they are plain texts, read in windows as training reads them; a text's first token counts where something opens texts.
        """
        asked = [part for index, (prompt, options) in enumerate(zip(prompts, choices, strict=True)) for part in self._parts(index, prompt, options)]
        found = [[Likelihood(0.0, 0)] * len(options) for options in choices]
        for batch in self._batches([len(part.head) + sum(len(tail) for tail in part.tails) for part in asked]):
            given = self._choose([asked[place].head for place in batch], [asked[place].tails for place in batch])
            for part, row in zip((asked[place] for place in batch), given, strict=True):
                for place, one in enumerate(row, part.first):
                    known = found[part.prompt][place]
                    found[part.prompt][place] = Likelihood(known.log_probability + one.log_probability, known.tokens + one.tokens)
            progress.advance(task, sum(asked[place].last for place in batch))
        return found

    def _parts(self, index: int, prompt: Sequence[Message], options: Sequence[str]) -> Iterator[_Part]:
        if prompt:
            yield _Part(index, 0, self.chat.prompt(prompt), [self.chat.answer(prompt, choice) for choice in options], last=True)
            return
        start = max(1, self.chat.virtual + (self.chat.tokenizer.bos_token_id is not None))
        windows = [(place, window.tokens) for place, text in enumerate(options) for window in self.chat.encode_text(text, _WINDOW) if len(window) > start]
        for number, (place, tokens) in enumerate(windows, 1):
            yield _Part(index, place, tokens[:start], [tokens[start:]], last=number == len(windows))

    def _choose(self, heads: Sequence[Sequence[int]], tails: Sequence[Sequence[Sequence[int]]]) -> list[list[Likelihood]]:
        tokens: list[int] = []
        positions: list[int] = []
        sources: list[int] = []
        labels: list[int] = []
        lengths: list[int] = []
        behind: list[int | None] = []
        for head, options in zip(heads, tails, strict=True):
            start, first = len(tokens), len(lengths)
            tokens.extend(head)
            lengths.append(len(head))
            behind.append(None)
            positions.extend(range(len(head)))
            for tail in options:
                # The first token of a choice is predicted at the prompt's last token, the others at the token before.
                sources.append(start + len(head) - 1)
                sources.extend(range(len(tokens), len(tokens) + len(tail) - 1))
                labels.extend(tail)
                tokens.extend(tail[:-1])
                positions.extend(range(len(head), len(head) + len(tail) - 1))
                if len(tail) > 1:
                    lengths.append(len(tail) - 1)
                    behind.append(first)
        states = self.hidden(tokens, positions, Packed(lengths, behind=behind))
        asked, wanted = torch.tensor(sources, device=self.device), torch.tensor(labels, device=self.device)
        scores = token_log_probabilities(states, self.head, asked, wanted, self.softcap).tolist()
        results, at = [], 0
        for options in tails:
            row = []
            for tail in options:
                row.append(Likelihood(sum(scores[at : at + len(tail)]), len(tail)))
                at += len(tail)
            results.append(row)
        return results


def _positions(lengths: Sequence[int]) -> list[int]:
    return [position for length in lengths for position in range(length)]
