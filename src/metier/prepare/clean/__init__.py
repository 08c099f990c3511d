"""Cleaning of text: encoding, invisible characters, remains of HTML, boilerplate, script and width, never a digit's value."""

from metier.prepare.clean.boilerplate import Boilerplate, repeated_lines
from metier.prepare.clean.settings import CleanSettings, RepeatedSettings
from metier.prepare.clean.tidy import clean, tidy

__all__ = ["Boilerplate", "CleanSettings", "RepeatedSettings", "clean", "repeated_lines", "tidy"]
