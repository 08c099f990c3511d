"""Names of people in text: taggers for Chinese and English, and models from folders, that join the rules of a detector."""

from metier.privacy.names.build import tagger_notes, taggers_for
from metier.privacy.names.en import EnglishNames
from metier.privacy.names.folder import FolderTagger
from metier.privacy.names.lac import LacTagger, lac_installed
from metier.privacy.names.memory import NameTagger, Remembering, read_ahead
from metier.privacy.names.settings import FolderSettings, NamesSettings
from metier.privacy.names.zh import ChineseNames

__all__ = [
    "ChineseNames",
    "EnglishNames",
    "FolderSettings",
    "FolderTagger",
    "LacTagger",
    "NameTagger",
    "NamesSettings",
    "Remembering",
    "lac_installed",
    "read_ahead",
    "tagger_notes",
    "taggers_for",
]
