"""Models with a head for labels, by the classes of transformers, called on packed rows: nothing is padded, no text sees another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.modeling_layers import GenericForTokenClassification

from metier.errors import ModelError
from metier.models import attention
from metier.models.attention import Packed
from metier.models.base import Base
from metier.models.body import hidden_states
from metier.models.feedforward import keep_less
from metier.models.labels import Labelling
from metier.models.load import check_attention
from metier.models.norms import quicken
from metier.models.stored import made_without_weights

__all__ = [
    "HEADS",
    "Layout",
    "computing_in",
    "first_position",
    "head_of",
    "is_encoder",
    "label_scores",
    "layout_of",
    "load_with_head",
    "longest",
    "looks_back",
    "outline",
    "plain_class",
    "whole_in_single_precision",
]

HEADS = ("score", "classifier")
"""Names under which transformers keeps the head of a model for labels."""

_OPTIONS = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a model is called on packed rows.

    `causal`: a token sees only what stands before it; `offset`: number of a text's first position; `kinds`: the model tells the two
    texts of a pair apart; `pooled`: one answer a text, given at its first token (encoders) or its last (decoders).
    """

    causal: bool
    offset: int
    kinds: bool
    pooled: bool


def _config(base: Base) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(base.folder, **_OPTIONS)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the configuration of {base.name} cannot be read: {_first_line(error)}") from None


def is_encoder(base: Base) -> bool:
    """Return whether a base model reads a text in both directions. Raises ModelError for one that transformers does not know."""
    config = _config(base)
    return not getattr(config, "is_decoder", False) and type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING


def longest(base: Base) -> int:
    """Return how many tokens a text may have for a base model."""
    config = _config(base).get_text_config()
    places = int(getattr(config, "max_position_embeddings", 0) or 1 << 30)
    # Models that count positions from behind the padding token's number lose that many.
    return places - 2 if config.model_type in ("roberta", "xlm-roberta", "camembert") else places


def load_with_head(base: Base, labelling: Labelling, dtype: torch.dtype, *, seed: int, frozen: bool, fresh: bool = True, later: bool = False) -> nn.Module:
    """Return a base model with a fresh head for a labelling, or (`fresh` False) with the head that it was stored with, in evaluation mode.

    The head is drawn by the seed: normal with the model's own initial width, no bias; so is the layer that gathers a text (the pooler of
    BERT) where the base model was stored without it. Their names are in the model's `trained_whole`: they are trained and stored as they
    are whatever the method. `frozen` says that nothing but these and adapters will be trained; norms are quickened then. `later`: what is not
    fresh is still on disk (see `metier.models.stored`). Raises ModelError
    if transformers has no such class for the model, or if other weights are missing.
    """
    attention.register()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config = _labelled(base, labelling)
    kind = _class_of(config, by_word=labelling.by_word)
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention.IMPLEMENTATION}
    try:
        if later:
            model, missing = made_without_weights(lambda: kind._from_config(config, **options), base, dtype)
        else:
            options |= {"output_loading_info": True, "use_safetensors": True, "ignore_mismatched_sizes": fresh}
            model, found = kind.from_pretrained(base.folder, config=config, **options, **_OPTIONS)
            missing = found["missing_keys"]
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the base model {base.name} cannot be loaded with a head: {_first_line(error)}") from None
    if not fresh and (lacking := sorted(missing)):
        raise ModelError(f"{base.name} lacks {len(lacking)} weights, first {lacking[0]!r}\n    -> give the folder of a whole model with its head")
    model.trained_whole = _fresh(model, missing, base) if fresh else ()
    width = float(getattr(config.get_text_config(), "initializer_range", 0.02))
    for name in model.trained_whole:
        part = model.get_submodule(name)
        _draw(part.to_empty(device="cpu") if later else part, width, seed)
    check_attention(config, base.name)
    if frozen:
        model.requires_grad_(False)
        quicken(model)
    keep_less(model)
    loaded: nn.Module = model.eval()
    return loaded


def plain_class(base: Base, labelling: Labelling) -> Any | None:
    """Return transformers' own class with a head for a labelling, which its Auto classes load; None where there is none."""
    return _plain_class(_config(base), by_word=labelling.by_word)


def _plain_class(config: Any, *, by_word: bool) -> Any | None:
    mapping = transformers.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING if by_word else transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return mapping.get(type(config), None)


def outline(base: Base, labelling: Labelling, dtype: torch.dtype = torch.float32, *, frozen: bool = False) -> nn.Module:
    """Return what `load_with_head` would give without any values (on torch's meta device): what a method needs can be looked for, and what a training
    takes can be counted, before anything is loaded. Raises ModelError if transformers has no such class for the model.
    """
    attention.register()
    config = _labelled(base, labelling)
    kind = _class_of(config, by_word=labelling.by_word)
    with torch.device("meta"):
        model: Any = kind._from_config(config, attn_implementation=attention.IMPLEMENTATION, dtype=dtype)
    head, pooler = head_of(model)[0], f"{model.base_model_prefix}.pooler"
    gathers = getattr(model.base_model, "pooler", None) is not None
    model.trained_whole = (head, pooler) if gathers and not _stores(base, "pooler.") else (head,)
    if frozen:
        model.requires_grad_(False)
        quicken(model)
    keep_less(model)
    shape: nn.Module = model
    return shape


def _stores(base: Base, part: str) -> bool:
    """Return whether a base model's files hold weights whose names have this part."""
    for path in sorted(base.folder.glob("*.safetensors")):
        with safe_open(path, "pt") as stored:
            if any(part in name for name in stored.keys()):  # noqa: SIM118 - it is no mapping
                return True
    return False


def _labelled(base: Base, labelling: Labelling) -> Any:
    """Return a base model's configuration with the outputs of a labelling."""
    config = _config(base)
    config.get_text_config().num_labels = config.num_labels = len(labelling.classes)
    config.id2label = dict(enumerate(labelling.classes))
    config.label2id = {name: index for index, name in enumerate(labelling.classes)}
    return config


def _fresh(model: Any, missing: Sequence[str], base: Base) -> tuple[str, ...]:
    """Return the names of the head and, if its weights are missing in the base model, of the pooler. Raises ModelError for other gaps and parts."""
    if unknown := sorted(name for name, child in model.named_children() if child is not model.base_model and name not in (*HEADS, "dropout")):
        raise ModelError(f"{type(model).__name__} has parts between body and head that are not known here: {', '.join(unknown)}")
    head, pooler = head_of(model)[0], f"{model.base_model_prefix}.pooler"
    lacking = sorted(name for name in missing if not name.startswith(f"{head}."))
    if odd := [name for name in lacking if not name.startswith(f"{pooler}.")]:
        raise ModelError(f"the base model {base.name} lacks {len(odd)} weights, first {odd[0]!r}\n    -> give the folder of a whole model")
    return (head, pooler) if lacking else (head,)


def _class_of(config: Any, *, by_word: bool) -> Any:
    """Return the class of transformers for a configuration; where it has none for words, the model's body with its general head for words."""
    if (found := _plain_class(config, by_word=by_word)) is not None:
        return found
    if by_word and type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        causal = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
        parent = next((item for item in causal.__mro__ if item.__name__.endswith("PreTrainedModel") and item is not transformers.PreTrainedModel), None)
        if parent is not None:
            name = causal.__name__.replace("ForCausalLM", "ForTokenClassification")
            return type(name, (GenericForTokenClassification, parent), {"config_class": type(config), "__module__": __name__})
    kind = "words" if by_word else "texts"
    raise ModelError(
        f"transformers has no head for {kind} on models of the type {config.model_type!r}\n    -> choose a BERT-, Llama-, Qwen- or Gemma-like model"
    )


def _draw(head: nn.Module, width: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            fresh = torch.zeros(parameter.shape) if name.endswith("bias") else torch.randn(parameter.shape, generator=generator) * width
            parameter.copy_(fresh)


def head_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Return name and module of a model's head. Raises ModelError for a model that keeps it elsewhere."""
    for name in HEADS:
        head = getattr(model, name, None)
        if isinstance(head, nn.Module):
            return name, head
    raise ModelError(f"{type(model).__name__} keeps its head under no name that is known here ({', '.join(HEADS)})")


def whole_in_single_precision(model: Any) -> None:
    """Put the parts that are trained as they are (`trained_whole`) in fp32; what they are given is turned to it: a body calls its pooler by itself."""
    for name in model.trained_whole:
        part = model.get_submodule(name)
        for module in part.modules():
            # Not module.float(): tensors without values, by which a plan counts, cannot be turned in their place.
            for key, parameter in list(module.named_parameters(recurse=False)):
                if parameter.dtype != torch.float32:
                    setattr(module, key, nn.Parameter(parameter.detach().float(), requires_grad=parameter.requires_grad))
        part.register_forward_pre_hook(lambda _module, given: (given[0].float(), *given[1:]))


def looks_back(model: Any) -> bool | None:
    """Return whether a model's attention sees only what stands before a token; None for one that does not say."""
    said = [bool(module.is_causal) for module in model.base_model.modules() if hasattr(module, "is_causal") and hasattr(module, "layer_idx")]
    return all(said) if said else None


def first_position(model: Any) -> int:
    """Return the number of a text's first position: families with a padding token among the positions count from behind its number."""
    padding = getattr(getattr(model.base_model, "embeddings", None), "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def layout_of(model: nn.Module, labelling: Labelling) -> Layout:
    """Return how a model is called. Raises ModelError for one whose attention does not say whether it is causal."""
    body: Any = model.base_model
    causal = looks_back(model)
    if causal is None:
        raise ModelError(f"{type(model).__name__} does not say whether its attention looks ahead, so it cannot be called on packed rows")
    kinds = int(getattr(body.config, "type_vocab_size", 0) or 0) > 1
    return Layout(causal, first_position(model), kinds, not labelling.by_word)


def label_scores(
    model: nn.Module,
    layout: Layout,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    *,
    lengths: Sequence[int],
    sources: torch.Tensor,
    kinds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the head's outputs [sources, classes] in fp32 for a packed row: `tokens`, `positions` and `kinds` are 1-D over all its texts.

    `sources` are the places of the tokens at which an answer is given.
    """
    body: Any = model.base_model
    plan = Packed(lengths, causal=layout.causal)
    # Indexing makes a contiguous copy: a frozen linear layer on a slice would copy its weight for every row.
    states = hidden_states(body, tokens, positions + layout.offset, plan, kinds=kinds if layout.kinds else None)[sources]
    pooler = getattr(body, "pooler", None)
    if layout.pooled and pooler is not None:
        states = pooler(states[:, None].to(_dtype(pooler, states)))
    dropout = getattr(model, "dropout", None)
    if dropout is not None:
        states = dropout(states)
    head = head_of(model)[1]
    flat = isinstance(head, nn.Linear)
    states = states.to(_dtype(head, states))
    scores: torch.Tensor = head(states if flat else states[:, None])
    return scores.float()


@contextmanager
def computing_in(model: Any, dtype: torch.dtype | None) -> Iterator[None]:
    """Let a model whose weights are fp32 multiply in another format inside the block; None changes nothing.

    Autocast alone would keep the sums between the layers in fp32, for the embeddings are: they are turned once, where they leave their layer.
    """
    if dtype is None:
        yield
        return
    body = model.base_model
    embeddings = getattr(body, "embeddings", None) or body.get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _module, _inputs, output: output.to(dtype))
    try:
        with torch.autocast(next(model.parameters()).device.type, dtype=dtype):
            yield
    finally:
        handle.remove()


def _dtype(module: nn.Module, given: torch.Tensor) -> torch.dtype:
    """Return the format of a module's weights; where adapters of another stand beside them, that of what it is given."""
    formats = {parameter.dtype for parameter in module.parameters()}
    return formats.pop() if len(formats) == 1 else given.dtype


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
