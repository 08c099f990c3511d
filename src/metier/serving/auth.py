"""API keys: made once, shown once, kept as digests; and the door that every request passes before any route is looked for.

A key is `mtr_` and 32 random bytes. It has too many values to be guessed from its SHA-256, so no slow hash is needed and a check takes
microseconds. Nothing is open but the liveness and readiness routes, and they are compared whole: no prefix opens anything.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from filelock import FileLock

from metier.digest import canonical_json
from metier.errors import Fault, InputError, StoreError, nearest
from metier.events import now
from metier.store import write_atomically

__all__ = ["FILE", "SCOPES", "ApiKey", "ApiKeys", "required_scope"]

FILE = "api-keys.json"
SCOPES = ("chat", "metrics")
"""`chat` asks questions and lists models, `metrics` reads the server's counters."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORM = re.compile(r"mtr_[A-Za-z0-9_-]{43}")
_SPAN = re.compile(r"([1-9][0-9]{0,4})([dh])")
_Stamp: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key: never the key itself. Times are RFC 3339 in UTC."""

    name: str
    digest: str
    scopes: tuple[str, ...]
    created: str
    expires: str | None = None
    revoked: str | None = None

    def valid(self, at: str) -> bool:
        """Return whether the key opens anything at a time."""
        return self.revoked is None and (self.expires is None or at < self.expires)


class ApiKeys:
    """The keys of one project in `api-keys.json` of a folder. A change of the file is seen at the next request."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._known: tuple[ApiKey, ...] = ()
        self._stamp: _Stamp | None = None

    def new(self, name: str, *, scopes: Iterable[str] = ("chat",), expires: str | None = None) -> str:
        """Make a key and return it: the only time that it can be seen. `expires` is a span such as `90d`, or a time in RFC 3339.

        Raises InputError for a name that is taken or not allowed, an unknown scope or a time that has passed.
        """
        wanted = tuple(dict.fromkeys(scopes))
        faults = [Fault(f"there is no scope {scope!r}", key="--scope", remedy=nearest(scope, SCOPES)) for scope in wanted if scope not in SCOPES]
        if not wanted:
            faults.append(Fault("a key without a scope opens nothing", key="--scope", remedy="valid: " + ", ".join(SCOPES)))
        if not _NAME.fullmatch(name):
            faults.append(Fault(f"{name!r} cannot be the name of a key", key="--name", remedy="use at most 64 letters, digits, . - and _"))
        until, fault = _expiry(expires)
        faults += [fault] if fault else []
        with self._locked():
            keys = self.list()
            if any(key.name == name for key in keys):
                faults.append(Fault(f"there is a key called {name!r} already", key="--name", remedy="choose another name; names are never used again"))
            if faults:
                raise InputError(faults)
            secret = f"mtr_{secrets.token_urlsafe(32)}"
            self._write([*keys, ApiKey(name, _digest(secret), wanted, now(), until)])
        return secret

    def revoke(self, name: str) -> ApiKey:
        """Make a key worthless from now on. Its name stays, so that the log can still be read. Raises InputError if there is none."""
        with self._locked():
            keys = {key.name: key for key in self.list()}
            if name not in keys:
                raise InputError(Fault(f"there is no key called {name!r}", key="--name", remedy=nearest(name, list(keys))))
            key = keys[name]
            if key.revoked is None:
                key = ApiKey(key.name, key.digest, key.scopes, key.created, key.expires, now())
                self._write([key if item.name == name else item for item in keys.values()])
        return key

    def list(self) -> tuple[ApiKey, ...]:
        """Return all keys ever made, in order. Raises StoreError if the file cannot be read as what it is."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            self._known, self._stamp = (), None
            return ()
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp != self._stamp:
            self._known = self._read()
            self._stamp = stamp
        return self._known

    def find(self, secret: str) -> ApiKey | None:
        """Return the valid key that a request brought, or None. Takes the same time for every key of the file."""
        if not _FORM.fullmatch(secret):
            return None
        digest, found = _digest(secret), None
        for key in self.list():
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found if found is not None and found.valid(now()) else None

    def _read(self) -> tuple[ApiKey, ...]:
        try:
            document = json.loads(self.path.read_bytes())
            return tuple(ApiKey(**{**item, "scopes": tuple(item["scopes"])}) for item in document["keys"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.path} cannot be read ({type(error).__name__})\n    -> restore the file, or remove it and make new keys") from None

    def _write(self, keys: Iterable[ApiKey]) -> None:
        document = {"keys": [asdict(key) for key in keys]}
        write_atomically(self.path, canonical_json(document) + b"\n", mode=0o600)

    def _locked(self) -> FileLock:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path.parent.chmod(0o700)
        return FileLock(self.path.with_suffix(".lock"), mode=0o600)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _expiry(text: str | None) -> tuple[str | None, Fault | None]:
    if text is None:
        return None, None
    if span := _SPAN.fullmatch(text):
        hours = int(span[1]) * (24 if span[2] == "d" else 1)
        return _stamped(datetime.now(UTC) + timedelta(hours=hours)), None
    remedy = "give a span such as 90d or 12h, or a time such as 2030-01-31T00:00:00+00:00"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None, Fault(f"{text!r} is no time", key="--expires", remedy=remedy)
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    if time <= datetime.now(UTC):
        return None, Fault(f"{text} has passed", key="--expires", remedy=remedy)
    return _stamped(time), None


def _stamped(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def required_scope(method: str, path: str) -> str | None:
    """Return the scope that a request needs, None where none is needed. Paths are compared whole, so that no prefix opens anything."""
    if method in ("GET", "HEAD") and path in ("/health", "/ready"):
        return None
    return "metrics" if path == "/metrics" else "chat"
