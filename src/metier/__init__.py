"""Metier: from an institution's own documents to a domain expert that can be shown to a regulator."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metier.privacy.once import deidentify

__all__ = ["__version__", "deidentify"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load `deidentify` when it is first used: importing metier stays quick."""
    if name == "deidentify":
        from importlib import import_module

        return import_module("metier.privacy.once").deidentify
    raise AttributeError(f"module 'metier' has no attribute {name!r}")
