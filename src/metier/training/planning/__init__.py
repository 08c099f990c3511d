"""What a training would need and whether it is worth it, before anything is spent: counted, measured on a small sample, decided with reasons.

torch and transformers are loaded when a name is first used, not when this package is imported.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from metier.training.planning.advice import advise
    from metier.training.planning.ask import Ask
    from metier.training.planning.bases import compare_bases, find_bases
    from metier.training.planning.decide import Aims
    from metier.training.planning.hardware import named
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "advice": ["advise"],
            "ask": ["Ask"],
            "bases": ["compare_bases", "find_bases"],
            "decide": ["Aims"],
            "hardware": ["named"],
        },
    )

__all__ = ["Aims", "Ask", "advise", "compare_bases", "find_bases", "named"]
