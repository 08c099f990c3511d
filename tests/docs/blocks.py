"""Blocks of code in Markdown: language, text, and the comment before them that says what to check."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCUMENTS", "ROOT", "Block", "blocks"]

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]

_BLOCK = re.compile(r"(?:^<!-- check: (?P<check>[^>]+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: where it stands, its language, its text and the words of its check."""

    path: Path
    line: int
    language: str
    text: str
    check: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks(language: str, *, check: str | None = None) -> Iterator[Block]:
    """Yield the blocks of a language in all documents; with `check`, those whose comment begins with that word."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for found in _BLOCK.finditer(text):
            words = tuple((found["check"] or "").split())
            if found["language"] == language and (check is None or words[:1] == (check,)):
                yield Block(path, text.count("\n", 0, found.start("text")) + 1, language, found["text"], words)
