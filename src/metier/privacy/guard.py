"""Refuses what holds personal identifiers: files before they are committed, uploads before an application sees them.

What is found is said by place and kind; the value is in no message.
"""

from __future__ import annotations

import fnmatch
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metier.errors import ConfigError, Fault
from metier.packs.matching import fold_width
from metier.privacy.detect import detector
from metier.privacy.once import language_of, rules_for_policy
from metier.privacy.policy import Policy, Treatment
from metier.records import Span

__all__ = ["ALLOW_FILE", "Allowed", "Finding", "Scan", "json_texts", "kinds_in", "read_allowed", "scan_files", "scan_text", "strings_of", "text_of"]

ALLOW_FILE = ".metier-allow"
"""Name of the file of exceptions that is read if none is given."""

_EVERYTHING = Policy(policy="guard", default=Treatment(action="mask", clause="whatever is found is refused"))
_SAMPLE = 8192
_ENCODINGS = ("utf-8-sig", "gb18030")
_LONGEST_PIECE = 100_000
"""Characters that are searched at a time; a line that is longer is cut where two pieces overlap."""
_OVERLAP = 400


@dataclass(frozen=True, slots=True)
class Finding:
    """An identifier in a file, by its place and kind."""

    path: Path
    line: int
    entity: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may stand: everything in some paths, some kinds in some paths, some values anywhere."""

    paths: tuple[tuple[str, str | None], ...] = ()
    values: frozenset[str] = frozenset()

    def file(self, path: Path) -> bool:
        """Return whether a file need not be looked into."""
        return any(entity is None and _matches(path, pattern) for pattern, entity in self.paths)

    def span(self, path: Path, span: Span) -> bool:
        """Return whether what was found may stand."""
        return fold_width(span.text) in self.values or any(entity == span.type and _matches(path, pattern) for pattern, entity in self.paths)


@dataclass(slots=True)
class Scan:
    """What a search of files found."""

    findings: list[Finding] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    """Files that are no text."""
    files: int = 0


def _matches(path: Path, pattern: str) -> bool:
    name = path.as_posix()
    return fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"*/{pattern}")


def read_allowed(path: Path) -> Allowed:
    """Read a file of exceptions. Raises ConfigError with every line that is none.

    A line is `= VALUE` (this value may stand), `PATTERN` (these files are not looked into) or `PATTERN ENTITY` (this kind may stand in
    them), with `*` in patterns; lines that begin with # are comments.
    """
    paths: list[tuple[str, str | None]] = []
    values: set[str] = set()
    faults: list[Fault] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(Fault(f"cannot be read: {type(error).__name__}", path, remedy="check the path; the file is UTF-8 text")) from None
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "=":
            values.add(fold_width(line.partition("=")[2].strip()))
        elif len(words) == 1 or (len(words) == 2 and words[1].isupper()):
            paths.append((words[0], words[1] if len(words) == 2 else None))
        else:
            faults.append(Fault("is no exception", path, number, remedy="write `PATTERN`, `PATTERN ENTITY` or `= VALUE`"))
    if faults:
        raise ConfigError(faults)
    return Allowed(tuple(paths), frozenset(values))


def scan_files(files: Iterable[Path], *, allow: Path | None = None, pack: str | None = None, least: float = 0.7) -> Scan:
    """Search files for identifiers that a rule finds with a confidence of `least` or more.

    `allow` names a file of exceptions (none: `.metier-allow` here, if there is one). Files that are no text are listed as skipped.
    Raises ConfigError for files that are not there.
    """
    allowed = read_allowed(allow or Path(ALLOW_FILE)) if allow or Path(ALLOW_FILE).exists() else Allowed()
    files = list(files)
    if missing := [path for path in files if not path.is_file()]:
        raise ConfigError([Fault("there is no such file", path, remedy="check the path") for path in missing])
    scan = Scan()
    for path in files:
        if allowed.file(path):
            continue
        scan.files += 1
        text = text_of(path.read_bytes())
        if text is None:
            scan.skipped.append(path)
            continue
        counts = Counter((line, span.type) for line, span in scan_text(text, pack=pack, least=least) if not allowed.span(path, span))
        scan.findings += [Finding(path, line, entity, count) for (line, entity), count in sorted(counts.items())]
    return scan


def text_of(data: bytes) -> str | None:
    """Return the text of a file's bytes (UTF-8, UTF-16 with its mark, or GB18030), None if they are no text."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _decoded(data, "utf-16")
    if b"\0" in data[:_SAMPLE]:
        return None
    return next((text for encoding in _ENCODINGS if (text := _decoded(data, encoding)) is not None), None)


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def scan_text(text: str, *, pack: str | None = None, least: float = 0.7) -> Iterator[tuple[int, Span]]:
    """Yield the identifiers of a text with their lines, from 1. Letters that JSON writes as escapes are read.

    Raises PackError for a rule that runs out of time: what cannot be searched is not let through.
    """
    identifiers, validators = rules_for_policy(pack, _EVERYTHING)
    for line, piece in _pieces(text):
        rules = detector(identifiers, language=language_of(piece), validators=validators)
        yield from ((line, span) for span in rules.spans(piece) if span.score >= least)


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers, long ones in pieces that overlap; a line with escapes is read as JSON would."""
    for number, line in enumerate(text.split("\n"), start=1):
        plain = _unescaped(line) if "\\u" in line else line
        for start in range(0, max(1, len(plain)), _LONGEST_PIECE - _OVERLAP):
            yield number, plain[start : start + _LONGEST_PIECE]


def _unescaped(line: str) -> str:
    parts = line.split("\\u")
    made = [parts[0]]
    for part in parts[1:]:
        code = part[:4]
        known = len(code) == 4 and all(char in "0123456789abcdefABCDEF" for char in code)
        made.append(chr(int(code, 16)) + part[4:] if known else "\\u" + part)
    return "".join(made)


def strings_of(value: Any) -> Iterator[str]:
    """Yield every string, key and whole number in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, int) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)


def kinds_in(texts: Sequence[str], *, pack: str | None, least: float) -> Counter[str]:
    """Return how many identifiers of which kind stand in texts. Raises PackError for a rule that runs out of time."""
    return Counter(span.type for text in texts for _, span in scan_text(text, pack=pack, least=least))


def json_texts(text: str) -> list[str] | None:
    """Return the strings of a JSON document or of JSON lines, None if it is neither."""
    try:
        return list(strings_of(json.loads(text)))
    except (ValueError, RecursionError):
        pass
    try:
        return [found for line in text.splitlines() if line.strip() for found in strings_of(json.loads(line))]
    except (ValueError, RecursionError):
        return None
