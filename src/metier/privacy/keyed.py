"""The surrogates of one project: what stands for a value is drawn from a secret key, so equal values get equal ones everywhere."""

from __future__ import annotations

import hashlib
import hmac

from metier.errors import PrivacyError
from metier.packs.matching import fold_width
from metier.packs.spec import Identifier
from metier.privacy.dates import shift
from metier.privacy.surrogates import GENERATORS, Draw, normalise

__all__ = ["SHORTEST_KEY", "Surrogates", "surrogate_mark"]

SHORTEST_KEY = 16
"""Bytes that a key has at least."""
_MOST_DAYS = 365


def surrogate_mark(key: bytes, surrogate: str) -> str:
    """Return `LENGTH:CODE` for a surrogate: its length in characters and 64 bits of its keyed hash (HMAC-SHA-256, RFC 2104).

    A later scan of the finished data can tell by the marks of a record which of its identifiers are Metier's own. Without the
    key nobody can, so what stands among the surrogates does not stick out.
    """
    code = hmac.new(key, f"surrogate\0{surrogate}".encode(), hashlib.sha256).hexdigest()[:16]
    return f"{len(surrogate)}:{code}"


class Surrogates:
    """The surrogates of one project. Whoever has the key can say which value became which surrogate, so it is kept apart from the data."""

    def __init__(self, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise PrivacyError(f"the key of the surrogates has {len(key)} bytes\n    -> give at least {SHORTEST_KEY} random bytes")
        self._key = key

    def days(self, subject: str) -> int:
        """Return by how many days the dates of a subject move: 1 to 365, earlier or later, never 0."""
        draw = Draw(self._key, "days", subject)
        return draw.random.randrange(1, _MOST_DAYS + 1) * draw.random.choice((-1, 1))

    def make(self, identifier: Identifier, value: str, attempt: int = 0) -> str:
        """Return the surrogate for one value; another `attempt` gives another one. Dates are moved by `shifted` instead."""
        parts = [identifier.entity, normalise(value), *([str(attempt)] if attempt else [])]
        return GENERATORS[identifier.surrogate].make(Draw(self._key, *parts), value)

    def shifted(self, identifier: Identifier, value: str, days: int) -> str:
        """Return a date moved by `days`, or the name of its kind where its writing is not known."""
        return shift(fold_width(value), days) or f"[{identifier.entity}]"

    def hashed(self, identifier: Identifier, value: str) -> str:
        """Return ``[ENTITY:0123456789ab]`` with 48 bits of the keyed hash of the value."""
        code = hmac.new(self._key, f"hash\0{identifier.entity}\0{normalise(value)}".encode(), hashlib.sha256).hexdigest()[:12]
        return f"[{identifier.entity}:{code}]"
