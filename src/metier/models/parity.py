"""Whether a model that was written out answers as the one it was made from: logits and greedy choices over golden conversations.

Both sides read the same tokens: a prompt and the greedy answer of the original. At every place of the answer the logits are compared,
so a wrong weight, a lost bias or a template of another runtime shows at once, and not only where the answers happen to part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from metier.errors import ModelError
from metier.models.attention import Cache, Decode, Packed, Prefill
from metier.models.head import next_logits
from metier.models.local import LocalModel
from metier.records import Message

__all__ = ["Golden", "Limits", "Parity", "adapter_effect", "compare", "first_difference", "golden", "own_logits", "plain_logits"]


@dataclass(frozen=True, slots=True)
class Golden:
    """A prompt with the original's greedy answer, as tokens; compared are the places from `first` on, each of which predicts a token."""

    messages: tuple[Message, ...]
    tokens: tuple[int, ...]
    first: int

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens of the prompt."""
        return self.tokens[: self.first + 1]


@dataclass(frozen=True, slots=True)
class Limits:
    """What may differ at most: mean divergence in nats a token, largest difference of a logit, share of the adapter's own effect.

    `tie` is how much the original may at most have preferred its own greedy choice, in logits, where the written model chooses otherwise.
    """

    divergence: float
    largest: float
    tie: float
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Parity:
    """What was measured: `divergence` is the mean of KL(original || written) in nats a token, `largest` the largest difference of two logits.

    `error` is the root mean square of the differences (each row of logits less its mean, which changes no probability), `effect` that of
    what the adapter changes in the base, None where there is no adapter. `same` is the share of places with the same greedy choice, and
    `flips` lists for each other place how much the original preferred its own choice, in logits.
    """

    conversations: int
    places: int
    divergence: float
    largest: float
    error: float
    same: float
    flips: tuple[float, ...]
    effect: float | None = None

    def faults(self, limits: Limits) -> list[str]:
        """Return in words what lies beyond the limits; a figure that is no number does, too."""
        found = []
        if not self.divergence <= limits.divergence:
            found.append(f"mean divergence {self.divergence:.2g} nats a token, at most {limits.divergence:g}")
        if not self.largest <= limits.largest:
            found.append(f"largest difference of a logit {self.largest:.3g}, at most {limits.largest:g}")
        far = [gap for gap in self.flips if not gap <= limits.tie]
        if far:
            found.append(
                f"{len(far)} of {self.places} greedy choices differ where the original preferred its own by up to {max(far):.2g}, at most {limits.tie:g}"
            )
        if limits.share is not None and self.effect is not None and not self.error <= limits.share * self.effect:
            lost = "all" if self.effect == 0 else f"{self.error / self.effect:.0%}"
            measured = f"root mean square {self.error:.2g} of {self.effect:.2g}"
            found.append(f"the differences are {lost} of what the adapter changes ({measured}), at most {limits.share:.0%}")
        return found

    def as_facts(self) -> dict[str, Any]:
        """Return it in its JSON form."""
        return {**asdict(self), "flips": list(self.flips)}


@torch.inference_mode()
def golden(model: LocalModel, prompts: Sequence[Sequence[Message]], *, answer_tokens: int, at_once: int = 8) -> list[Golden]:
    """Return the prompts with the very tokens of the model's greedy answers, at most `answer_tokens` each, their end included."""
    found = []
    for start in range(0, len(prompts), at_once):
        some = prompts[start : start + at_once]
        heads = [model.chat.prompt(prompt) for prompt in some]
        answers = _answers(model, heads, answer_tokens)
        # The last token predicts nothing that is compared: it is where the answer ends.
        found += [Golden(tuple(prompt), (*head, *answer[:-1]), len(head) - 1) for prompt, head, answer in zip(some, heads, answers, strict=True)]
    return found


def _answers(model: LocalModel, heads: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Return the tokens of the greedy answers to prompts given as tokens."""
    lengths = [len(head) for head in heads]
    cache = Cache(len(heads), max(lengths) + most)
    states = model.hidden([token for head in heads for token in head], [place for length in lengths for place in range(length)], Prefill(lengths, cache))
    states = states[torch.tensor(lengths).cumsum(0) - 1]
    answers: list[list[int]] = [[] for _ in heads]
    going = list(range(len(heads)))
    while going:
        tokens = next_logits(states, model.head, model.softcap).argmax(dim=1).tolist()
        for row, token in zip(going, tokens, strict=True):
            answers[row].append(token)
        left = [place for place, row in enumerate(going) if tokens[place] not in model.chat.stop_tokens and len(answers[row]) < most]
        going, tokens = [going[place] for place in left], [tokens[place] for place in left]
        if going:
            plan = Decode(cache, going)
            states = model.hidden(tokens, [cache.lengths[row] - 1 for row in going], plan)
    return answers


@torch.inference_mode()
def own_logits(model: LocalModel, rows: Sequence[Golden]) -> list[torch.Tensor]:
    """Return the logits [places, vocabulary] of each row by Metier's own model, adapter included, in fp32."""
    return [next_logits(model.hidden(row.tokens, range(len(row.tokens)), Packed([len(row.tokens)]))[row.first :], model.head, model.softcap) for row in rows]


@torch.inference_mode()
def plain_logits(model: Any, rows: Iterable[Golden]) -> Iterator[torch.Tensor]:
    """Yield the logits [places, vocabulary] of each row by a plain model of transformers, in fp32."""
    for row in rows:
        output = model(input_ids=torch.tensor([row.tokens], device=model.device), logits_to_keep=len(row.tokens) - row.first, use_cache=False)
        yield output.logits[0].float()


@torch.inference_mode()
def adapter_effect(model: LocalModel, rows: Sequence[Golden], adapted: Sequence[torch.Tensor]) -> float:
    """Return the root mean square of what the adapter changes in the base model's logits over these rows."""
    total, count = 0.0, 0
    with model.without_adapter():
        for row, logits in zip(rows, adapted, strict=True):
            (plain,) = own_logits(model, [row])
            total += float(_centred(plain - logits).square().sum(dtype=torch.float64))
            count += logits.numel()
    return float((total / max(count, 1)) ** 0.5)


def _centred(difference: torch.Tensor) -> torch.Tensor:
    return difference - difference.mean(dim=1, keepdim=True)


@torch.inference_mode()
def compare(original: Sequence[torch.Tensor], written: Iterable[torch.Tensor], *, effect: float | None = None) -> Parity:
    """Return how far a written model's logits are from the original's. A written row may be longer in vocabulary: padding is not compared."""
    divergence = squares = 0.0
    largest = 0.0
    places = cells = same = 0
    flips: list[float] = []
    for ours, found in zip(original, written, strict=True):
        if len(found) != len(ours) or found.shape[1] < ours.shape[1]:
            raise ModelError(
                f"the written model gives logits {tuple(found.shape)} where the original gives {tuple(ours.shape)}\n    -> this is a bug; report it"
            )
        theirs = found[:, : ours.shape[1]]
        first = ours.log_softmax(dim=1)
        divergence += float((first.exp() * (first - theirs.log_softmax(dim=1))).sum(dtype=torch.float64))
        centred = _centred(theirs - ours)
        squares += float(centred.square().sum(dtype=torch.float64))
        largest = max(largest, float((theirs - ours).abs().max())) if torch.isfinite(theirs).all() else float("nan")
        chosen, other = ours.argmax(dim=1), theirs.argmax(dim=1)
        gaps = (ours.gather(1, chosen[:, None]) - ours.gather(1, other[:, None]))[:, 0]
        flips += [float(gap) for gap in gaps[chosen != other]]
        same += int((chosen == other).sum())
        places, cells = places + len(ours), cells + ours.numel()
    return Parity(len(original), places, divergence / max(places, 1), largest, (squares / max(cells, 1)) ** 0.5, same / max(places, 1), tuple(flips), effect)


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Return the first place at which two rows of tokens differ, None if the shorter one begins the longer one."""
    return next((place for place, (first, second) in enumerate(zip(one, other, strict=False)) if first != second), None)
