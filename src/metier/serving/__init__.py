"""Serving: released experts answer and label texts over HTTP, guarded, and nothing is answered that is not on record.

torch, FastAPI and uvicorn are loaded when a name that needs them is first used.
"""

from typing import TYPE_CHECKING

import lazy_loader

from metier.serving.auth import ApiKeys
from metier.serving.released import Served
from metier.serving.settings import ServingSettings

if TYPE_CHECKING:
    from metier.serving.app import build_app
    from metier.serving.engine import Engine
    from metier.serving.guard import Guard
    from metier.serving.server import background, serve
    from metier.serving.service import Service, open_workers
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "app": ["build_app"],
            "engine": ["Engine"],
            "guard": ["Guard"],
            "server": ["background", "serve"],
            "service": ["Service", "open_workers"],
        },
    )

__all__ = ["ApiKeys", "Engine", "Guard", "Served", "Service", "ServingSettings", "background", "build_app", "open_workers", "serve"]
