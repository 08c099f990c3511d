"""Files of data as records with provenance: JSON, CSV, Parquet and XML, in the forms that the field uses."""

from metier.sources.reading import SourceSet, read
from metier.sources.settings import SourceSettings

__all__ = ["SourceSet", "SourceSettings", "read"]
