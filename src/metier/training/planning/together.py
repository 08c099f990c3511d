"""The plan of a joint training: the ranks of the shared part and of each project's own, which one update of their sum would hide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from metier.models.methods import METHODS, MethodName
from metier.training.examples import Examples
from metier.training.members import Member
from metier.training.planning.decide import Decision
from metier.training.planning.methods import Method, trainable_parameters
from metier.training.planning.shape import ModelShape
from metier.training.settings import TrainingSettings

__all__ = ["Together"]


@dataclass(frozen=True, slots=True)
class Together:
    """Who trains together, by name in the order of the training, and the rank of each one's own part; nobody: a training by itself."""

    members: tuple[str, ...]
    own: int

    @classmethod
    def of(cls, members: Sequence[Member], settings: TrainingSettings) -> Self:
        """Return it for the members of a training."""
        return cls(tuple(sorted(member.project for member in members)), settings.adaptation.joint.rank)

    def shares(self, method: Method) -> bool:
        """Return whether a method has a shared part here and one of each member's own."""
        return bool(self.members) and "adaptation.joint" in METHODS[cast("MethodName", method.name)].reads

    def whole(self, method: Method) -> Method:
        """Return a method of this shared rank with every member's own part beside it, as one update of the sum: that is what is multiplied."""
        return replace(method, rank=method.rank + self.own * len(self.members)) if self.shares(method) else method

    def ranks(self, method: Method) -> dict[str, int] | None:
        """Return the rank of the shared part and of each own one of a method as `whole` returns it; None where there is nothing of the kind."""
        if not self.shares(method):
            return None
        return {"shared": method.rank - self.own * len(self.members), "own": self.own, "members": len(self.members)}

    def explained(self, decision: Decision) -> Decision:
        """Return a decision that says what its rank is the rank of."""
        if not self.shares(decision.trains):
            return decision
        note = f"The rank is that of the shared part; each of the {len(self.members)} projects has a part of rank {self.own} of its own beside it."
        return replace(decision, notes=(*decision.notes, note))

    def facts(self, shape: ModelShape, expert: Method, taught: Examples) -> dict[str, Any] | None:
        """Return who trains together, with how many examples each, and how many numbers one expert has: the shared part and its own (`expert`)."""
        if not self.members:
            return None
        counts = Counter(taught.member_of(place) for place in range(len(taught)))
        examples = {name: counts[place] for place, name in enumerate(self.members)}
        return {"examples": examples, "expert_parameters": trainable_parameters(shape, expert)}
