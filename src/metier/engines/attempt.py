"""One piece of work in another process: what goes wrong there comes back as a value, without the data it quotes."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from metier.errors import MetierError

__all__ = ["Answer", "Failure", "attempt", "result"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong: a message for the user, or the type and place of a bug (never its text, which may quote data)."""

    kind: str
    message: str
    place: str


Answer: TypeAlias = tuple[bool, Any]
"""True and the result, or False and the Failure."""


def attempt(function: Callable[[Any], Any], item: Any) -> Answer:
    """Return what `function(item)` gives, or how it failed."""
    try:
        return True, function(item)
    except Exception as error:  # noqa: BLE001 - the outermost edge of another process; the parent raises it again
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = str(error) if isinstance(error, MetierError) else ""
        return False, Failure(type(error).__name__, message, f"{frame.filename}:{frame.lineno}")


def result(answer: Answer) -> Any:
    """Return the result of an attempt. Raises MetierError with its message, or with type and place of a bug."""
    good, value = answer
    if good:
        return value
    if value.message:
        raise MetierError(value.message)
    raise MetierError(f"a worker process failed with {value.kind} at {value.place}\n    -> this is a bug of Metier or of a pack; report the line above")
