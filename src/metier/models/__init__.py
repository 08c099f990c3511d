"""Language models: loading, chat rendering, adapters, generation, likelihood.

torch and transformers are loaded when a name that needs them is first used, not when this package is imported.
"""

from typing import TYPE_CHECKING

import lazy_loader

from metier.models.base import Base, at_hand, look_for, resolve
from metier.models.interface import Generation, GenerationSettings, LanguageModel, Likelihood
from metier.models.labels import Prediction

if TYPE_CHECKING:
    from metier.models.chat import Chat, Encoded
    from metier.models.encode import SentenceEncoder, mean_states, text_likelihoods
    from metier.models.labeller import Labeller
    from metier.models.load import load_weights
    from metier.models.local import LocalModel
    from metier.models.precision import matmul_peak
    from metier.models.tokenizer import load_tokenizer
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "chat": ["Chat", "Encoded"],
            "encode": ["SentenceEncoder", "mean_states", "text_likelihoods"],
            "labeller": ["Labeller"],
            "load": ["load_weights"],
            "local": ["LocalModel"],
            "precision": ["matmul_peak"],
            "tokenizer": ["load_tokenizer"],
        },
    )

__all__ = [
    "Base",
    "Chat",
    "Encoded",
    "Generation",
    "GenerationSettings",
    "Labeller",
    "LanguageModel",
    "Likelihood",
    "LocalModel",
    "Prediction",
    "SentenceEncoder",
    "at_hand",
    "load_tokenizer",
    "load_weights",
    "look_for",
    "matmul_peak",
    "mean_states",
    "resolve",
    "text_likelihoods",
]
