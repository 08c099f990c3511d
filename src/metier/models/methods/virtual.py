"""Virtual tokens: prompt tuning, p-tuning and prefix tuning.

Each example begins with tokens of the ids -1, -2, ...: the embedding gives them learnt vectors (prompt tuning, p-tuning), or every
attention layer gives them learnt keys and values (prefix tuning), which makes what stands in their place below without effect.
Packing, masks, caches and positions need to know nothing of it. What is saved is PEFT's: one tensor `prompt_embeddings`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from metier.errors import ModelError
from metier.models.attention import Packed
from metier.models.heads import first_position, looks_back
from metier.models.methods.interface import Shape
from metier.models.methods.structure import attentions_of

__all__ = ["Prefix", "VirtualTokens", "attach_virtual", "load_virtual"]

_NAME = "prompt_embeddings"


class Seen:
    """The ids of the row that passes through the model now, which a prefix has to know in every layer."""

    def __init__(self) -> None:
        self.ids: torch.Tensor | None = None


class _Embedding(nn.Module):
    """An embedding that knows virtual tokens, and notes the row for the layers above."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.table: nn.Parameter | None = None
        self.encoder: nn.Module | None = None
        self.seen = Seen()

    @property
    def weight(self) -> torch.Tensor:
        """The base embedding's own weights, for models that tie their head to them."""
        weight: torch.Tensor = self.base.weight  # type: ignore[assignment]
        return weight

    def vectors(self) -> torch.Tensor:
        """Return the virtual tokens' vectors [tokens, hidden] in fp32."""
        assert self.table is not None
        found: torch.Tensor = self.table if self.encoder is None else self.encoder(self.table)
        return found

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the vectors of tokens [..., length]."""
        self.seen.ids = ids
        states: torch.Tensor = self.base(ids.clamp(min=0))
        if self.table is None or not bool((ids < 0).any()):
            return states
        learnt = self.vectors().to(states.dtype)[(-1 - ids).clamp(min=0)]
        return torch.where((ids < 0)[..., None], learnt, states)


class Prefix(nn.Module):
    """Learnt keys and values of one attention layer for the virtual tokens, [heads, tokens, size] each."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor, seen: Seen) -> None:
        super().__init__()
        self.key = nn.Parameter(key.contiguous())
        self.value = nn.Parameter(value.contiguous())
        self._seen = seen

    def forward(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return key and value [1, heads, tokens, size] with those of the row's virtual tokens replaced."""
        ids = self._seen.ids
        if ids is None or not bool((ids < 0).any()):
            return key, value
        places, mask = (-1 - ids[0]).clamp(min=0), (ids < 0)[:, None, :, None]
        learnt_key, learnt_value = self.key.to(key.dtype)[:, places], self.value.to(value.dtype)[:, places]
        return torch.where(mask, learnt_key[None], key), torch.where(mask, learnt_value[None], value)


class VirtualTokens:
    """Prompt tuning, p-tuning or prefix tuning on a model; see `Tuned`."""

    def __init__(self, model: Any, method: str, tokens: int) -> None:
        self.virtual = tokens
        self._model = model
        self._method = method
        self._embedding = _Embedding(model.get_input_embeddings())
        model.set_input_embeddings(self._embedding)
        self._start: list[torch.Tensor] = []
        self._attentions = attentions_of(model) if method == "prefix" else []

    @property
    def hidden(self) -> int:
        """Width of the model."""
        return int(self._model.config.get_text_config().hidden_size)

    @property
    def _head_size(self) -> int:
        first = self._attentions[0]
        return int(first.head_dim if hasattr(first, "head_dim") else first.attention_head_size)

    def fill(self, table: torch.Tensor, size: int | None) -> None:
        """Start from the vectors [tokens, hidden]; `size` makes them the input of a network (p-tuning)."""
        self._embedding.table = nn.Parameter(table)
        if size is not None:
            self._embedding.encoder = _network(self.hidden, size)

    def fill_layers(self, keys: list[torch.Tensor], values: list[torch.Tensor]) -> None:
        """Start from keys and values [heads, tokens, size] of each layer (prefix tuning)."""
        for module, key, value in zip(self._attentions, keys, values, strict=True):
            module.prefix = Prefix(key, value, self._embedding.seen)

    def state(self) -> dict[str, torch.Tensor]:
        """Return `prompt_embeddings` as PEFT has it: [tokens, hidden], or [tokens, layers x 2 x heads x size] for a prefix."""
        if self._method != "prefix":
            return {_NAME: self._embedding.vectors().detach().clone()}
        # PEFT: view(tokens, 2 x layers, heads, size), keys and values of a layer one after the other.
        parts = [part.detach().transpose(0, 1) for module in self._attentions for part in (module.prefix.key, module.prefix.value)]
        return {_NAME: torch.stack(parts, dim=1).reshape(self.virtual, -1).clone()}

    def config(self) -> dict[str, Any]:
        """Return PEFT's configuration of the method."""
        kind = {"prompt": "PROMPT_TUNING", "p-tuning": "P_TUNING", "prefix": "PREFIX_TUNING"}[self._method]
        text = self._model.config.get_text_config()
        heads = getattr(text, "num_key_value_heads", text.num_attention_heads)
        about: dict[str, Any] = {"peft_type": kind, "num_virtual_tokens": self.virtual, "token_dim": self.hidden, "num_layers": text.num_hidden_layers}
        # Without a task PEFT would put no virtual tokens before a text.
        about |= {"task_type": "CAUSAL_LM", "num_attention_heads": heads, "num_transformer_submodules": 1}
        if self._method == "prefix":
            about |= {"prefix_projection": False, "token_dim": heads * self._head_size, "encoder_hidden_size": self.hidden}
        elif self._method == "p-tuning":
            about |= {"encoder_reparameterization_type": "MLP", "encoder_hidden_size": self.hidden}
        else:
            about |= {"prompt_tuning_init": "RANDOM"}
        return about

    def distance(self) -> torch.Tensor:
        """Return the squared distance of the virtual tokens from their start."""
        return torch.stack([(part - start.to(part.device)).square().sum() for part, start in zip(self._numbers(), self._start, strict=True)]).sum()

    def begin(self) -> None:
        """Note the present numbers as the start."""
        self._start = [part.detach().clone() for part in self._numbers()]

    def _numbers(self) -> list[torch.Tensor]:
        if self._method != "prefix":
            return [self._embedding.vectors()]
        return [part for module in self._attentions for part in (module.prefix.key, module.prefix.value)]

    def enable(self, on: bool) -> None:
        """See `Tuned`: without virtual tokens in a row nothing of this takes part, so there is nothing to switch."""

    @torch.no_grad()
    def recorded(self, tokens: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return each layer's keys and values [heads, tokens, size] in fp32 for a row of real tokens."""
        plan = _Recorder(len(tokens), causal=looks_back(self._model) is not False)
        places = torch.arange(len(tokens), device=tokens.device)[None] + first_position(self._model)
        self._model.get_decoder()(input_ids=tokens[None], position_ids=places, plan=plan, use_cache=False)
        return [plan.keys[index] for index in sorted(plan.keys)], [plan.values[index] for index in sorted(plan.values)]

    def load(self, tensor: torch.Tensor) -> None:
        """Take the tensor of an adapter file. Raises ModelError if it does not fit the model."""
        text = self._model.config.get_text_config()
        if self._method != "prefix":
            _expect(tensor, (self.virtual, self.hidden))
            self._embedding.table = nn.Parameter(tensor.float())
            return
        heads, size = getattr(text, "num_key_value_heads", text.num_attention_heads), self._head_size
        _expect(tensor, (self.virtual, len(self._attentions) * 2 * heads * size))
        parts = tensor.float().view(self.virtual, len(self._attentions), 2, heads, size).permute(1, 2, 3, 0, 4)
        self.fill_layers([part[0].clone() for part in parts], [part[1].clone() for part in parts])


class _Recorder(Packed):
    """A plan that keeps every layer's keys and values."""

    def __init__(self, length: int, *, causal: bool) -> None:
        super().__init__([length], causal=causal)
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, window: int | None) -> torch.Tensor:
        """Keep and attend; see `Plan`."""
        self.keys[layer], self.values[layer] = key[0].float().clone(), value[0].float().clone()
        return super().attend(layer, query, key, value, scale, window)


def _network(hidden: int, size: int) -> nn.Module:
    return nn.Sequential(nn.Linear(hidden, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, hidden))


def _expect(tensor: torch.Tensor, shape: tuple[int, int]) -> None:
    if tuple(tensor.shape) != shape:
        raise ModelError(f"{_NAME!r} has shape {tuple(tensor.shape)}, the base model needs {shape}")


def attach_virtual(model: Any, method: str, shape: Shape, seed: int) -> VirtualTokens:
    """Freeze a model and give it virtual tokens.

    They start as tokens of the vocabulary drawn by the seed (Lester et al. 2021, section 3.2: better than random vectors), a prefix as the
    keys and values that the model itself makes of them: from random ones training is slow and forgets much.
    """
    model.requires_grad_(False)
    tuned = VirtualTokens(model, method, shape.tokens)
    embedding = tuned._embedding
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(embedding.weight), (shape.tokens,), generator=generator).to(embedding.weight.device)
    if method == "prefix":
        tuned.fill_layers(*tuned.recorded(drawn))
        tuned.begin()
        return tuned
    with torch.no_grad():
        table = embedding.base(drawn[None])[0].float().clone()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tuned.fill(table, shape.size if method == "p-tuning" else None)
    tuned.begin()
    return tuned


def load_virtual(model: Any, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> VirtualTokens:
    """Put the virtual tokens of an adapter file on a model. Raises ModelError if they do not fit."""
    method = {"PROMPT_TUNING": "prompt", "P_TUNING": "p-tuning", "PREFIX_TUNING": "prefix"}[config["peft_type"]]
    if set(tensors) != {_NAME}:
        raise ModelError(f"an adapter of type {config['peft_type']} holds one tensor {_NAME!r}, this one holds {', '.join(sorted(tensors))[:120]}")
    model.requires_grad_(False)
    tuned = VirtualTokens(model, method, len(tensors[_NAME]))
    tuned.load(tensors[_NAME])
    return tuned
