"""What a base model makes of plain text: one vector a text, and how likely a text is. Packed, so that nothing is padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers

from metier.errors import ModelError
from metier.models.attention import Packed
from metier.models.body import hidden_states
from metier.models.head import token_log_probabilities
from metier.models.interface import Likelihood
from metier.models.local import LocalModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SentenceEncoder", "mean_states", "text_likelihoods"]


@torch.inference_mode()
def mean_states(model: LocalModel, texts: Sequence[str], *, depth: float = 0.6, maximum_tokens: int = 512) -> NDArray[np.float32]:
    """Return one vector a text, float32 [texts, hidden]: the mean of its tokens' hidden states after `depth` of the layers.

    Middle layers tell meaning apart better than the last, which is shaped for the next token (Skean et al. 2025, Layer by Layer).
    The first `maximum_tokens` tokens of a text count. An empty text has the vector 0.
    """
    encoded = [_tokens(model, text)[:maximum_tokens] for text in texts]
    found = np.zeros((len(texts), model.head.shape[1]), dtype=np.float32)
    layer = round(depth * model.model.config.get_text_config().num_hidden_layers)
    for batch in _batches(model, [len(tokens) for tokens in encoded]):
        lengths = [len(encoded[index]) for index in batch]
        plan = Packed(lengths)
        states = _states(model, [token for index in batch for token in encoded[index]], lengths, plan, layer)
        start = 0
        for index, length in zip(batch, lengths, strict=True):
            # The first token is the start of the text and says nothing of it.
            if length > 1:
                found[index] = states[start + 1 : start + length].float().mean(dim=0).cpu().numpy()
            start += length
    return found


def _states(model: LocalModel, tokens: Sequence[int], lengths: Sequence[int], plan: Packed, layer: int) -> torch.Tensor:
    ids = torch.tensor(list(tokens), device=model.device)
    places = torch.tensor([place for length in lengths for place in range(length)], device=model.device)
    return hidden_states(model.model.get_decoder(), ids, places, plan, layer=layer)


@torch.inference_mode()
def text_likelihoods(model: LocalModel, texts: Sequence[str], *, maximum_tokens: int = 2048) -> list[Likelihood]:
    """Return how likely each text is to the model without anything before it, over its first `maximum_tokens` tokens.

    An empty text has the log-probability 0 and no tokens.
    """
    encoded = [_tokens(model, text)[: maximum_tokens + 1] for text in texts]
    found = [Likelihood(0.0, 0)] * len(texts)
    for batch in _batches(model, [len(tokens) for tokens in encoded]):
        lengths = [len(encoded[index]) for index in batch]
        rows = [token for index in batch for token in encoded[index]]
        states = model.hidden(rows, [place for length in lengths for place in range(length)], Packed(lengths))
        sources: list[int] = []
        labels: list[int] = []
        start = 0
        for index, length in zip(batch, lengths, strict=True):
            sources.extend(range(start, start + length - 1))
            labels.extend(encoded[index][1:])
            start += length
        if not labels:
            continue
        asked, wanted = torch.tensor(sources, device=model.device), torch.tensor(labels, device=model.device)
        scores = token_log_probabilities(states, model.head, asked, wanted, model.softcap).tolist()
        at = 0
        for index, length in zip(batch, lengths, strict=True):
            found[index] = Likelihood(sum(scores[at : at + length - 1]), length - 1)
            at += length - 1
    return found


class SentenceEncoder:
    """An encoder in a folder in the form of Hugging Face (config.json, safetensors, tokenizer): one vector a text by mean pooling."""

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        """Load the encoder offline, never running code of its own. Raises ModelError that says what is missing."""
        if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
            raise ModelError(f"{folder} is no encoder\n    -> give a folder with config.json, safetensors weights and a tokenizer")
        options = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder, **options)
            self._model: Any = transformers.AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **options).to(device).eval()
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"the encoder {folder} cannot be loaded: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
        self._device = device

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], *, rows: int = 32, maximum_tokens: int = 512) -> NDArray[np.float32]:
        """Return the mean of the last hidden states, float32 [texts, hidden]; texts of similar length go together. An empty text has the vector 0."""
        found = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        order = sorted((index for index in range(len(texts)) if texts[index].strip()), key=lambda index: len(texts[index]))
        for start in range(0, len(order), rows):
            batch = order[start : start + rows]
            given = self._tokenizer([texts[index] for index in batch], padding=True, truncation=True, max_length=maximum_tokens, return_tensors="pt").to(
                self._device
            )
            states = self._model(**given).last_hidden_state
            there = given["attention_mask"][:, :, None].to(states)
            found[batch] = ((states * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)).float().cpu().numpy()
        return found


def _tokens(model: LocalModel, text: str) -> list[int]:
    tokenizer: Any = model.chat.tokenizer
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    tokens: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [start, *tokens]


def _batches(model: LocalModel, lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield indices of texts, similar lengths together, in rows of at most the model's `batch_tokens`."""
    batch: list[int] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lambda item: lengths[item]):
        if batch and total + lengths[index] > model.batch_tokens:
            yield batch
            batch, total = [], 0
        batch.append(index)
        total += lengths[index]
    if batch:
        yield batch
