"""Metier: from an institution's own documents to a domain expert that can be shown to a regulator."""

__version__ = "0.1.0"
