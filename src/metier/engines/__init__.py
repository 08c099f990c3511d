"""How chunks of work are executed: in this process, or in several."""

from metier.engines.engine import LOCAL, Engine, Local
from metier.engines.processes import Processes

__all__ = ["LOCAL", "Engine", "Local", "Processes"]
