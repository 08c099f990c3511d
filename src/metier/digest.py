"""Content digests: one canonical JSON form, one hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["canonical_json", "digest_bytes", "digest_file", "digest_of"]

_BLOCK = 1 << 20


def canonical_json(value: Any) -> bytes:
    """Return the one UTF-8 form of `value`: sorted keys, no spaces, no NaN.

    Raises ValueError for NaN and infinities, TypeError for anything that JSON has no form for.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def digest_bytes(data: bytes) -> str:
    """Return the lower-case hexadecimal SHA-256 (FIPS 180-4) of `data`, 64 characters."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`."""
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read in blocks. Raises OSError as `open` does."""
    hasher = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()
