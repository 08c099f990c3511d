"""A search over training settings: trials that are drawn, trained, given up where they are hopeless, and compared.

torch and Optuna are loaded when `search` is first used, not when this package is imported.
"""

from typing import TYPE_CHECKING

import lazy_loader

from metier.training.sweep.settings import SweepSettings

if TYPE_CHECKING:
    from metier.training.sweep.diary import SAME, Diary
    from metier.training.sweep.draw import is_grid, planned_trials
    from metier.training.sweep.fit import check_fit
    from metier.training.sweep.report import headline, short
    from metier.training.sweep.run import search
    from metier.training.sweep.space import Space, read_space
    from metier.training.sweep.workers import local_workers, ray_workers
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "diary": ["SAME", "Diary"],
            "draw": ["is_grid", "planned_trials"],
            "fit": ["check_fit"],
            "report": ["headline", "short"],
            "run": ["search"],
            "space": ["Space", "read_space"],
            "workers": ["local_workers", "ray_workers"],
        },
    )

__all__ = [
    "SAME",
    "Diary",
    "Space",
    "SweepSettings",
    "check_fit",
    "headline",
    "is_grid",
    "local_workers",
    "planned_trials",
    "ray_workers",
    "read_space",
    "search",
    "short",
]
