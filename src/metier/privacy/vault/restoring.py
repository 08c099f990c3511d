"""Puts originals back into a text that holds tokens."""

from __future__ import annotations

from collections.abc import Mapping

import regex

from metier.privacy.vault.vault import Original

__all__ = ["restored", "tokens_in"]

_TOKEN = regex.compile(r"\[(?P<entity>[A-Z][A-Z0-9_]*):(?P<token>[a-z2-7]{16})\]")


def tokens_in(text: str) -> list[str]:
    """Return the tokens that stand in a text as ``[ENTITY:token]``, each once, in order."""
    return list(dict.fromkeys(match["token"] for match in _TOKEN.finditer(text)))


def restored(text: str, originals: Mapping[str, Original]) -> str:
    """Return the text with every token that `originals` knows replaced by its original; others stay."""

    def original(match: regex.Match[str]) -> str:
        found = originals.get(match["token"])
        return match.group() if found is None or found.entity != match["entity"] else found.value

    return str(_TOKEN.sub(original, text))
