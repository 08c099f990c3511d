"""Files that unpack to far more than they are: told before they fill the memory."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from mmap import mmap
from pathlib import Path
from xml.parsers import expat

from metier.errors import Fault, SourceError

__all__ = ["DAMAGE", "LARGEST", "check_archive", "check_streams"]

DAMAGE = (
    *(KeyError, ValueError, TypeError, AttributeError, IndexError, OSError, EOFError, NotImplementedError, RuntimeError, AssertionError),
    *(struct.error, zlib.error, zipfile.BadZipFile, expat.ExpatError),
)
"""What readers of office files and PDF raise where they stumble over damage, each at its own place."""

LARGEST = 512 << 20
"""Bytes that an office file, or one stream of a PDF, may unpack to."""
_MEMBERS = 20_000
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_STREAM = re.compile(rb"stream\r?\n")
_BOMB = "is the file what it says? open it and save it again, or split it"


def check_archive(path: Path, shown: str, *, largest: int = LARGEST) -> None:
    """Raise SourceError for an office file that is no ZIP archive, is encrypted, or unpacks to more than `largest` bytes."""
    with path.open("rb") as stream:
        if stream.read(8) == _OLE:
            what = "an encrypted or an old office file (.doc, .xls), not an open one"
            raise SourceError(Fault(what, shown, remedy="take the password off, or save it as .docx or .xlsx"))
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise SourceError(Fault(f"not an office file: {error}", shown, remedy="copy the file again; is it cut off?")) from None
    size = sum(member.file_size for member in members)
    if size > largest or len(members) > _MEMBERS:
        raise SourceError(Fault(f"it unpacks to {size:,} bytes in {len(members):,} parts", shown, remedy=_BOMB))


def check_streams(data: bytes | mmap, shown: str, *, largest: int = LARGEST) -> None:
    """Raise SourceError for a PDF of which a compressed stream unpacks to more than `largest` bytes."""
    for found in _STREAM.finditer(data):
        place = found.end()
        if data[place : place + 1] not in (b"\x78", b"\x58", b"\x48", b"\x68", b"\x38"):
            continue
        inflater, size = zlib.decompressobj(), 0
        try:
            while size <= largest and not inflater.eof and (block := inflater.unconsumed_tail or data[place : place + (1 << 16)]):
                place += 0 if inflater.unconsumed_tail else len(block)
                size += len(inflater.decompress(block, 1 << 20))
        except zlib.error:
            continue
        if size > largest:
            raise SourceError(Fault(f"a stream of the PDF unpacks to more than {largest:,} bytes", shown, remedy=_BOMB))
