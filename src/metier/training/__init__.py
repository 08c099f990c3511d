"""Fine-tuning: one loop; methods and objectives are functions given to it.

torch is loaded when `train` is first used, not when this package is imported.
"""

from typing import TYPE_CHECKING

import lazy_loader

from metier.training.launch import following, processes
from metier.training.settings import TrainingSettings
from metier.training.support import unlabelled_keys, unshared
from metier.training.sweep.settings import SweepSettings

if TYPE_CHECKING:
    from metier.training.crew import dismiss
    from metier.training.members import Member
    from metier.training.stage import follow, train
else:
    __getattr__, _, _ = lazy_loader.attach(__name__, submod_attrs={"crew": ["dismiss"], "members": ["Member"], "stage": ["follow", "train"]})

__all__ = ["Member", "SweepSettings", "TrainingSettings", "dismiss", "follow", "following", "processes", "train", "unlabelled_keys", "unshared"]
