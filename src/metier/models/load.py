"""Loading a base model's weights: safetensors only, offline, no code of the model's own."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from metier.errors import ModelError
from metier.models import attention
from metier.models.base import Base
from metier.models.feedforward import keep_less
from metier.models.norms import quicken
from metier.models.stored import made_without_weights

__all__ = ["check_attention", "load_weights"]


def load_weights(base: Base, dtype: torch.dtype, *, later: bool = False) -> torch.nn.Module:
    """Return the base model with Metier's packed attention and quick norms, in `dtype`, frozen and in evaluation mode.

    `later`: its weights are still on disk (see `metier.models.stored`), to be read share by share. Raises ModelError if it cannot be loaded, if its class
    hands no attention implementation through, or if it caps its attention's scores, which the packed attention does not do.
    """
    attention.register()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention.IMPLEMENTATION, "trust_remote_code": False}
    try:
        if later:
            model = _later(base, options)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(base.folder, local_files_only=True, use_safetensors=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the base model {base.name} cannot be loaded: {_first_line(error)}") from None
    check_attention(model.config, base.name)
    model.requires_grad_(False).eval()
    quicken(model)
    keep_less(model)
    loaded: torch.nn.Module = model
    return loaded


def _later(base: Base, options: dict[str, Any]) -> Any:
    config = transformers.AutoConfig.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
    model, missing = made_without_weights(lambda: transformers.AutoModelForCausalLM.from_config(config, **options), base, options["dtype"])
    if missing:
        raise ModelError(
            f"{len(missing)} weights of {base.name} are stored under other names, first {missing[0]!r}, and cannot be read part by part\n"
            "    -> write engine.distribution: replicated, or save the model again with save_pretrained of transformers 5"
        )
    return model


def check_attention(config: Any, name: str) -> None:
    """Raise ModelError for a model whose attention scores are capped (Gemma 2): without the cap it would answer otherwise than it was trained to."""
    cap = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    if cap:
        raise ModelError(
            f"the base model {name} caps its attention's scores (attn_logit_softcapping {cap}), which is not worked out here\n    -> choose another base model"
        )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
