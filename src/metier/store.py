"""The artefact store: content-addressed folders under `.metier/`, written aside, moved into place, manifest last.

::

    .metier/
        lock                       held by the process that works here, with who and since when inside
        artifacts/<kind>/<digest>/ finished artefacts, each with its manifest.json
        stages/<key>.json          which artefacts a stage returned for these inputs, settings and code
        work/<key>/                what an unfinished stage has so far; survives interruption
        plan/<key>.json            what a plan measured, kept until its inputs change; may be removed
        joint/<key>/               parts of all members of a joint training, for each to take its own; may be removed
        tokens/ asked/ replay/     tokenised examples, the base model's answers to tasks and to general questions: the last 8 of each; may be removed
        sweep/<key>/               trials of a sweep, their journal and the report; may be removed
        keys/                      secrets of this project (mode 0700)
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from metier.artifacts import MANIFEST, Artifact, Kind, manifest_digest
from metier.digest import canonical_json, digest_file
from metier.errors import BusyError, StoreError
from metier.progress import SILENT, Progress

__all__ = ["Store", "Workspace", "remove_folder", "streamed_atomically", "sync_folder", "whole_lines", "write_atomically"]


def sync_folder(path: Path) -> None:
    """Flush a folder's own list of names to the disk: what was made or renamed in it is there after a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _store_error(error: OSError, path: Path) -> StoreError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"the disk that holds {path} is full; nothing half-written was kept\n    -> free some space and run the same command again")
    return StoreError(f"cannot write {path}: {error.strerror or error}\n    -> check that the folder exists and may be written, then run again")


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file aside, flush it to the disk and rename it into place: readers see the old or the new, never a part.

    Raises StoreError if the disk is full or the folder cannot be written.
    """
    with streamed_atomically(path, mode=mode) as stream:
        stream.write(data)


@contextmanager
def streamed_atomically(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield what a file is written to part by part; it is there, as with `write_atomically`, once the block has ended well.

    Raises StoreError if the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _store_error(error, path) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def whole_lines(path: Path) -> list[bytes]:
    """Return the whole lines of a file that grows line by line, and cut it off after the last of them. A file that is not there has none."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as stream:
            stream.truncate(whole)
    return data[:whole].splitlines()


def remove_folder(path: Path) -> None:
    """Remove a folder and all in it, if it exists."""
    shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a stage is given: a folder that survives interruption, a way to report and a way to hand in its result."""

    store: Store
    key: str
    progress: Progress = SILENT
    code: str = ""
    """Digest of the code that the stage's work depends on; empty where nobody has said it."""
    shared: Path | None = None
    """Folder of what is kept for the next stage that needs it too (see `kept`), where that is not the store itself."""

    def kept(self, name: str) -> Path:
        """Return the folder in which stages keep something under a name for each other, such as tokenised examples."""
        return (self.shared or self.store.root) / name

    @property
    def folder(self) -> Path:
        """The stage's own folder; the same inputs, settings and code find it again after an interruption."""
        path = self.store.root / "work" / self.key
        path.mkdir(parents=True, exist_ok=True)
        return path

    def commit(self, kind: Kind, folder: Path, *, parents: Sequence[str], facts: Mapping[str, Any]) -> Artifact:
        """Turn a folder below the workspace into a finished artefact; see `Store.commit`."""
        return self.store.commit(kind, folder, parents=parents, facts=facts)


class Store:
    """Finished artefacts of one project, by digest; see the module's docstring for the layout."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the project for this process. Raises BusyError, which says who holds it, if another one does."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _store_error(error, self.root) from error
        guard, holder = FileLock(self.root / "lock"), self.root / "lock.json"
        try:
            guard.acquire(timeout=0)
        except Timeout:
            raise BusyError(f"{self.root.parent} is in use by {_holder(holder)}\n    -> wait for it to end, or stop it; nothing of its work is lost") from None
        except OSError as error:
            raise _store_error(error, self.root) from error
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            write_atomically(holder, canonical_json({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            guard.release()

    def workspace(self, key: str, progress: Progress = SILENT) -> Workspace:
        """Return the workspace of a stage key."""
        return Workspace(self, key, progress)

    def commit(self, kind: Kind, folder: Path, *, parents: Sequence[str], facts: Mapping[str, Any]) -> Artifact:
        """Move `folder` into the store as a finished artefact and return it.

        Every file is hashed and flushed; the manifest is written last, then the folder is renamed into place. An
        artefact of the same digest that is already there, undamaged, is kept. `facts` must have a JSON form.
        """
        try:
            files = {}
            for path in sorted(item for item in folder.rglob("*") if item.is_file() and item.name != MANIFEST):
                with path.open("rb") as stream:
                    os.fsync(stream.fileno())
                files[path.relative_to(folder).as_posix()] = {"sha256": digest_file(path), "bytes": path.stat().st_size}
            manifest: dict[str, Any] = {"metier": 1, "kind": kind, "parents": list(parents), "facts": dict(facts), "files": files}
            manifest["digest"] = manifest_digest(manifest)
            target = self.root / "artifacts" / kind / manifest["digest"]
            if (target / MANIFEST).exists() and not self.damaged(found := self.open(kind, manifest["digest"])):
                remove_folder(folder)
                return found
            write_atomically(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True).encode())
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_folder(target)
            folder.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            raise _store_error(error, folder) from error
        return self.open(kind, manifest["digest"])

    def open(self, kind: Kind, digest: str) -> Artifact:
        """Return a finished artefact. Raises StoreError if it is not there or its manifest does not match its name."""
        path = self.root / "artifacts" / kind / digest
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"no finished {kind} {digest[:12]} under {self.root}\n    -> run the stage that makes it again") from error
        if manifest_digest(manifest) != digest:
            raise StoreError(f"{path / MANIFEST} was changed after it was written\n    -> remove the folder and run the stage again")
        return Artifact(kind, digest, tuple(manifest["parents"]), path, manifest["facts"], manifest["files"])

    def newest(self, kind: Kind) -> Artifact | None:
        """Return the finished artefact of a kind whose manifest was written last, None if there is none."""
        manifests = sorted((self.root / "artifacts" / kind).glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
        return self.open(kind, manifests[-1].parent.name) if manifests else None

    def find(self, key: str) -> tuple[Artifact, ...] | None:
        """Return what a stage returned for this key, or None if it has to run (also if a file of it is gone)."""
        try:
            entries = json.loads((self.root / "stages" / f"{key}.json").read_bytes())
            found = tuple(self.open(entry["kind"], entry["digest"]) for entry in entries)
        except (OSError, ValueError, StoreError):
            return None
        complete = all(_same_size(item.path / name, facts) for item in found for name, facts in item.files.items())
        return found if complete else None

    def remember(self, key: str, artifacts: Sequence[Artifact]) -> None:
        """Write down what a stage returned for this key and clear its workspace."""
        entries = [{"kind": item.kind, "digest": item.digest} for item in artifacts]
        write_atomically(self.root / "stages" / f"{key}.json", canonical_json(entries))
        remove_folder(self.root / "work" / key)

    def damaged(self, artifact: Artifact) -> list[str]:
        """Return the names of an artefact's files whose bytes are not those of its manifest."""
        return [name for name, facts in artifact.files.items() if not _same_bytes(artifact.path / name, facts)]

    def secret(self, name: str, size: int = 32) -> bytes:
        """Return this project's secret of that name, made at random on first use. Never logged, never in a manifest."""
        path = self.root / "keys" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, os.urandom(size), mode=0o600)
        return path.read_bytes()


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return "another process"
    return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"


def _same_size(path: Path, facts: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == facts["bytes"]


def _same_bytes(path: Path, facts: Mapping[str, Any]) -> bool:
    return _same_size(path, facts) and digest_file(path) == facts["sha256"]
