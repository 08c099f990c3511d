"""Experts handed to other runtimes: merged weights, GGUF files and vLLM's adapter folders, each compared with the original and put on record."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from metier.deploy.export import Exported, check, export
    from metier.deploy.forms import Format
    from metier.deploy.golden import read_prompts
    from metier.deploy.subject import Subject, Wish
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "export": ["Exported", "check", "export"],
            "forms": ["Format"],
            "golden": ["read_prompts"],
            "subject": ["Subject", "Wish"],
        },
    )

__all__ = ["Exported", "Format", "Subject", "Wish", "check", "export", "read_prompts"]
