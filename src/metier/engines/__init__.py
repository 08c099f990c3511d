"""How work is executed: chunk by chunk in this process, in several or by Ray; or by several workers of Ray together."""

from metier.engines.engine import LOCAL, Engine, Local
from metier.engines.processes import Processes
from metier.engines.ray import Ray
from metier.engines.settings import EngineSettings, engine_of
from metier.engines.together import together

__all__ = ["LOCAL", "Engine", "EngineSettings", "Local", "Processes", "Ray", "engine_of", "together"]
