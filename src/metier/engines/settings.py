"""What a project says of how its work is executed. None of it changes a result."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from metier.config import Settings
from metier.engines.engine import LOCAL, Engine
from metier.engines.processes import Processes
from metier.engines.ray import Ray

__all__ = ["EngineSettings", "engine_of"]


class EngineSettings(Settings):
    """Where chunks of work are executed. The same data gives the same dataset with each engine."""

    kind: Literal["local", "ray"] = "local"
    """`local`: this machine. `ray`: Ray tasks (extra `ray`)."""
    processes: int = Field(default=1, ge=1)
    """Processes on this machine; the workers of a Ray of its own. A cluster brings its own number."""
    address: str | None = None
    """Address of a Ray cluster, or `auto`; left out: a Ray of its own on this machine."""
    training_workers: int = Field(default=1, ge=1)
    """Workers of Ray that train one expert together. Without Ray a launcher says how many: torchrun, or `accelerate launch`."""
    distribution: Literal["replicated", "sharded"] = "replicated"
    """How a training's weights, gradients and optimiser state lie over its processes: whole in each, or cut up so that each holds a part (FSDP2)."""

    @model_validator(mode="after")
    def _fits(self) -> EngineSettings:
        if self.address is not None and self.kind != "ray":
            raise ValueError("an address is of use to the engine ray only; write kind: ray or leave the address out")
        if self.training_workers > 1 and self.kind != "ray":
            raise ValueError("training_workers is of use to the engine ray only; write kind: ray, or start the command by torchrun")
        return self


def engine_of(settings: EngineSettings, *, processes: int | None = None) -> Engine:
    """Return the engine that the settings describe; `processes` overrides theirs."""
    address, count = settings.address, settings.processes if processes is None else processes
    if settings.kind == "ray":
        return Ray(address, workers=None if address else max(count, settings.training_workers))
    return Processes(count) if count > 1 else LOCAL
