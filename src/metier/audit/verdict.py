"""What verification found, and texts of others made safe to show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Verdict", "What", "visible"]

What: TypeAlias = Literal["log", "bundle", "proof"]


def visible(text: str) -> str:
    """Return text with everything outside printable ASCII escaped: names in a log or a bundle must not steer the terminal."""
    return json.dumps(text)[1:-1].replace("\x7f", "\\u007f")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a verification. `fault` is the first thing that fails; size and root (hexadecimal) are those of the log."""

    what: What
    intact: bool
    fault: str | None = None
    origin: str | None = None
    size: int = 0
    root: str | None = None
    key_id: str | None = None
    pinned: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the verdict in the form that machines read."""
        names = ("what", "intact", "fault", "origin", "size", "root", "key_id", "pinned")
        return {**{name: getattr(self, name) for name in names}, "facts": dict(self.facts)}

    def lines(self) -> list[str]:
        """Return the verdict for people."""
        if not self.intact:
            return [f"{self.what}: DOES NOT VERIFY", *(f"  {visible(line)}" for line in (self.fault or "").splitlines())]
        lines = [f"{self.what}: verifies"]
        if self.root is not None:
            lines.append(f"  {self.size} entries, root {self.root}")
        lines += [f"  {name.replace('_', ' ')}: {visible(str(value))}" for name, value in self.facts.items()]
        lines.append(f"  signed by {self.key_id}")
        if not self.pinned:
            lines.append("  the key was taken from what it signed: compare it with what its owner published, or give --public-key or --key-id")
        return lines
