"""How chunks of work are executed: in this process, in several, or by Ray."""

from metier.engines.engine import LOCAL, Engine, Local
from metier.engines.processes import Processes
from metier.engines.ray import Ray
from metier.engines.settings import EngineSettings, engine_of

__all__ = ["LOCAL", "Engine", "EngineSettings", "Local", "Processes", "Ray", "engine_of"]
