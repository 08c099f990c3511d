"""Experts handed to other runtimes: merged weights, GGUF files and vLLM's adapter folders, each compared with the original and put on record."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from metier.deploy.export import Exported, check, export
    from metier.deploy.golden import read_prompts
    from metier.deploy.subject import Format, Subject, Wish
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "export": ["Exported", "check", "export"],
            "golden": ["read_prompts"],
            "subject": ["Format", "Subject", "Wish"],
        },
    )

__all__ = ["Exported", "Format", "Subject", "Wish", "check", "export", "read_prompts"]
