"""Files of data as records with provenance: tables, conversations, documents and well-known corpora, with a register of the terms they are held on."""

from metier.sources.documents import ChunkSettings
from metier.sources.missing import MissingSettings
from metier.sources.reading import SourceSet, read
from metier.sources.register import Finding, check_register
from metier.sources.settings import ReadSettings, SourceSettings
from metier.sources.terms import Terms

__all__ = ["ChunkSettings", "Finding", "MissingSettings", "ReadSettings", "SourceSet", "SourceSettings", "Terms", "check_register", "read"]
