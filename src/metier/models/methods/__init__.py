"""The methods of adapting a model, behind one door: attach one to be trained, or open one that was trained.

torch is loaded when a name that needs it is first used; `METHODS` is data.
"""

from typing import TYPE_CHECKING

import lazy_loader

from metier.models.methods.names import METHODS, MethodFacts, MethodName

if TYPE_CHECKING:
    from metier.models.methods.adalora import AdaptiveRanks
    from metier.models.methods.interface import Shape, Tuned, Watched, switched_off
    from metier.models.methods.joint import Joint, attach_joint, member_state
    from metier.models.methods.opening import attach_method, check_method, open_adapter, open_saved
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "adalora": ["AdaptiveRanks"],
            "interface": ["Shape", "Tuned", "Watched", "switched_off"],
            "joint": ["Joint", "attach_joint", "member_state"],
            "opening": ["attach_method", "check_method", "open_adapter", "open_saved"],
        },
    )

__all__ = [
    "METHODS",
    "AdaptiveRanks",
    "Joint",
    "MethodFacts",
    "MethodName",
    "Shape",
    "Tuned",
    "Watched",
    "attach_joint",
    "attach_method",
    "check_method",
    "member_state",
    "open_adapter",
    "open_saved",
    "switched_off",
]
