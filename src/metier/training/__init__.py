"""Fine-tuning: one loop; methods and objectives are functions given to it.

torch is loaded when `train` is first used, not when this package is imported.
"""

from typing import TYPE_CHECKING

import lazy_loader

from metier.training.settings import TrainingSettings

if TYPE_CHECKING:
    from metier.training.stage import train
else:
    __getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs={"stage": ["train"]})

__all__ = ["TrainingSettings", "train"]
