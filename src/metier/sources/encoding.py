"""Which encoding a text file has: declared, or decided by strict decoding of the whole file. Never a silent guess."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from metier.errors import Fault, SourceError

__all__ = ["COMPRESSED", "Decision", "decide", "fingerprint", "head", "open_text"]

COMPRESSED = (".gz", ".zst")
"""Suffixes of compressed text files."""

_BLOCK = 1 << 20
_BOM = codecs.BOM_UTF8
_CHINESE = {"gb18030", "gbk", "gb2312"}


@dataclass(frozen=True, slots=True)
class Decision:
    """The encoding used for a file, and why."""

    encoding: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Failure:
    offset: int
    line: int


def _open(path: Path) -> IO[bytes]:
    """Open a file for its bytes, unpacked where its suffix says that it is compressed (`.gz`, `.zst`)."""
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    if path.suffix == ".zst":
        import pyarrow as pa

        return cast("IO[bytes]", pa.input_stream(str(path), compression="zstd"))
    return path.open("rb")


def _blocks(path: Path) -> Iterator[bytes]:
    with _open(path) as stream:
        while block := stream.read(_BLOCK):
            yield block


def fingerprint(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of the file's bytes as they lie on the disk, and their number. Raises OSError."""
    hasher, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
            size += len(block)
    return hasher.hexdigest(), size


def open_text(path: Path, encoding: str) -> IO[str]:
    """Open a text file (compressed: `.gz`, `.zst`) for strict decoding; lines end at \\n only and keep their ends."""
    if path.suffix in COMPRESSED:
        return io.TextIOWrapper(_open(path), encoding=encoding, errors="strict", newline="\n")
    return path.open("r", encoding=encoding, errors="strict", newline="\n")


def _first_failure(path: Path, encoding: str) -> _Failure | None:
    """Decode the whole file strictly; return where that fails, or None if it does not."""
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    seen = lines = 0
    for data, final in _with_end(_blocks(path)):
        pending = len(decoder.getstate()[0])
        try:
            decoder.decode(data, final)
        except UnicodeDecodeError as error:
            start = error.start - pending
            inside = data[: max(start, 0)].count(b"\n")
            return _Failure(seen + start, lines + inside + 1)
        seen += len(data)
        lines += data.count(b"\n")
    return None


def _with_end(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    for block in blocks:
        yield block, False
    yield b"", True


def _reads_as_chinese(path: Path, *, share: float = 0.9) -> bool:
    """Tell whether a file that decodes as GB18030 also looks like it: `share` of its non-ASCII characters are in GB 2312.

    Strict GB18030 accepts many files of other encodings (Latin-1, Big5, UTF-8), but as rare characters. GB 2312 covers
    over 99 % of running Chinese text (GB 2312-80). Judged on the first MiB.
    """
    sample = next(_blocks(path), b"")
    text = codecs.getincrementaldecoder("gb18030")("strict").decode(sample)
    foreign = [character for character in text if character > "\x7f"]
    known = len("".join(foreign).encode("gb2312", "ignore")) // 2
    return known >= share * len(foreign)


def decide(path: Path, shown: str, declared: str) -> Decision:
    """Return the encoding of a text file. `declared` is a codec's name or `auto`; `shown` is the file's name in messages.

    Raises SourceError if the file is not what is declared, or if `auto` finds neither UTF-8 nor GB18030.
    """
    try:
        start = next(_blocks(path), b"")
        if declared == "auto":
            return _detect(path, shown, start)
        return _verify(path, shown, declared, start)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SourceError(Fault(f"damaged gzip file ({error})", shown, remedy="copy the file again; it is cut off or not gzip")) from None
    except OSError as error:
        remedy = "copy the file again; it is cut off or not zst" if path.suffix == ".zst" else "check the file's permissions"
        raise SourceError(Fault(f"cannot be read: {error.strerror or error}", shown, remedy=remedy)) from None


def head(path: Path) -> bytes:
    """Return the first bytes of a text file (8 KiB at least, if it has them), unpacked. Raises OSError and what damage in a compressed file raises."""
    return next(_blocks(path), b"")


def _detect(path: Path, shown: str, start: bytes) -> Decision:
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SourceError(Fault("the file is UTF-16, by its byte order mark", shown, remedy="write encoding: utf-16"))
    marked = start.startswith(_BOM)
    failure = _first_failure(path, "utf-8")
    if failure is None:
        return Decision("utf-8-sig", "detected: UTF-8 byte order mark, whole file decodes") if marked else Decision("utf-8", "detected: whole file decodes")
    if not marked and _first_failure(path, "gb18030") is None and _reads_as_chinese(path):
        return Decision("gb18030", f"detected: not UTF-8 (byte {failure.offset}), whole file decodes as GB18030")
    remedy = "write the file's encoding (encoding: big5, latin-1 ...), or save it as UTF-8"
    raise SourceError(Fault(f"neither UTF-8 (byte {failure.offset} is wrong) nor GB18030", shown, failure.line, remedy=remedy))


def _verify(path: Path, shown: str, declared: str, start: bytes) -> Decision:
    try:
        b"".decode(declared)
        name = codecs.lookup(declared).name
    except LookupError:
        raise SourceError(
            Fault(f"there is no text encoding {declared!r}", shown, key="encoding", remedy="write utf-8, gb18030, big5 or leave it out")
        ) from None
    failure = _first_failure(path, name)
    if failure is not None:
        raise SourceError(Fault(f"declared as {declared}, but byte {failure.offset} is not {declared}", shown, failure.line, remedy=_better(path, name)))
    if name in _CHINESE and not _reads_as_chinese(path) and _first_failure(path, "utf-8") is None:
        raise SourceError(Fault(f"declared as {declared}, but reads as UTF-8", shown, remedy="it decodes as UTF-8: write encoding: utf-8"))
    if name == "utf-8" and start.startswith(_BOM):
        return Decision("utf-8-sig", "declared; begins with a byte order mark")
    return Decision(name, "declared")


def _better(path: Path, tried: str) -> str:
    if tried != "utf-8" and _first_failure(path, "utf-8") is None:
        return "it decodes as UTF-8: write encoding: utf-8"
    if tried not in _CHINESE and _first_failure(path, "gb18030") is None and _reads_as_chinese(path):
        return "it decodes as GB18030: write encoding: gb18030"
    return "write the encoding that the file really has, or save it as UTF-8"
