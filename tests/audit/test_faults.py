"""Faults: killed, disk full, connection lost. What was acknowledged is there; what was not is an error; the log goes on."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sql

from audit.conftest import SERVER, Reopen, event, execute
from metier.audit import AuditSettings, Keys, Ledger, open_ledger
from metier.errors import LedgerError

KILLED = """
import sys, threading
from pathlib import Path
from metier.audit import AuditSettings, Keys, open_ledger
from metier.events import Event, now
where, folder = sys.argv[1:]
ledger = open_ledger(where, Keys.open(Path(folder)), AuditSettings(head_every=8))
def work(name):
    number = 0
    while True:
        index = ledger.record(Event("prediction", name, now(), {"request": number}, {"answer": "x" * 200}, name))
        sys.stdout.write(f"{index} {name} {number}\\n")
        sys.stdout.flush()
        number += 1
for name in "abcd":
    threading.Thread(target=work, args=(name,)).start()
"""


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.7])
def test_after_kill_9_every_acknowledged_entry_is_in_the_log(where: str | Path, keys: Keys, reopen: Reopen, seconds: float) -> None:
    assert keys.public_pem
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(where), str(keys.folder.parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate()
    lines = [line.split() for line in (first + rest).splitlines() if line.count(" ") == 2]
    ledger = reopen()
    assert ledger.state().fault is None
    entries = {entry.index: entry for entry in ledger.entries()}
    for index, name, number in lines:
        assert (entries[int(index)].actor, entries[int(index)].facts["request"]) == (name, int(number))
    assert ledger.record(event()) == len(entries)


LIMITED = """
import resource, signal, sys
from pathlib import Path
from metier.audit import AuditSettings, Keys, open_ledger
from metier.errors import LedgerError
from metier.events import Event, now
path, folder = Path(sys.argv[1]), Path(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = open_ledger(path, Keys.open(folder), AuditSettings(head_every=8))
event = Event("prediction", "a", now(), {}, {"answer": "x" * 20_000})
kept = [ledger.record(event) for _ in range(3)]
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
refused = 0
for _ in range(40):
    try:
        kept.append(ledger.record(event))
    except LedgerError as error:
        refused += 1
        assert "cannot write to the log" in str(error), error
        assert "x" * 100 not in str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
after = ledger.record(event)
print(refused, len(kept), after, kept == sorted(set(kept)), ledger.state().fault)
"""


def test_a_full_disk_refuses_and_the_log_goes_on_when_there_is_room(tmp_path: Path, keys: Keys) -> None:
    """The system itself refuses to let files grow, as it does when the disk is full."""
    path = tmp_path / "state" / "ledger.sqlite"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path), str(keys.folder.parent)], capture_output=True, text=True, check=True, timeout=120)
    refused, kept, after, in_order, fault = done.stdout.split()
    assert int(refused) > 0
    assert int(kept) >= 3
    assert int(after) >= int(kept)
    assert (in_order, fault) == ("True", "None")
    with open_ledger(path, Keys.open(keys.folder.parent), AuditSettings(head_every=8)) as ledger:
        assert ledger.state().fault is None
        assert len(list(ledger.entries())) == int(after) + 1


def test_a_really_full_disk(tmp_path: Path, keys: Keys) -> None:
    """On a small file system of its own, where this may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        ledger = open_ledger(place / "ledger.sqlite", keys, AuditSettings(head_every=8))
        ledger.record(event())
        ballast = place / "ballast"
        with ballast.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
            while True:
                stream.write(bytes(1024))
        for number in range(30):
            try:
                ledger.append([event(number, note="y" * 5000)])
            except LedgerError as error:
                assert "has room" in str(error)
                break
        else:
            pytest.fail("the disk was full and nothing was refused")
        size = len(list(ledger.entries()))
        ballast.unlink()
        assert ledger.record(event()) >= size
        assert ledger.state().fault is None
        ledger.close()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_heads_file_that_cannot_be_written_is_no_acknowledgement(ledger: Ledger, heads: Path) -> None:
    ledger.record(event(0))
    aside = heads.rename(heads.with_suffix(".aside"))
    heads.mkdir()
    with pytest.raises(LedgerError, match="cannot open"):
        ledger.record(event(1))
    heads.rmdir()
    aside.rename(heads)
    assert ledger.record(event(2)) == 1
    assert ledger.state().fault is None


def test_another_process_that_holds_the_log_is_waited_for_and_then_named(ledger: Ledger, heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    ledger.record(event(0))
    with heads.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        locked = ledger._heads.locked
        monkeypatch.setattr(ledger._heads, "locked", lambda: locked(patience=0.2))
        with pytest.raises(LedgerError, match="another process has held the log"):
            ledger.record(event(1))
    assert ledger.record(event(1)) == 1


def test_an_interrupted_writer_hands_the_turn_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, began, go = ledger._turns._commit, threading.Event(), threading.Event()

    def interrupted(items: object) -> object:
        began.set()
        go.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger._turns, "_commit", interrupted)
    outcomes: list[object] = []

    def call(number: int) -> None:
        try:
            outcomes.append(ledger.record(event(number)))
        except (KeyboardInterrupt, LedgerError) as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    threads[0].start()
    began.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(ledger._turns._queue) < 3:
        time.sleep(0.01)
    monkeypatch.setattr(ledger._turns, "_commit", commit)
    go.set()
    for thread in threads:
        thread.join(10)
    assert outcomes[0] is KeyboardInterrupt or KeyboardInterrupt in outcomes
    assert sorted(item for item in outcomes if isinstance(item, int)) == [0, 1, 2]
    assert ledger.state().fault is None


class Proxy:
    """A TCP proxy before the server, which can cut its connections, refuse new ones, or swallow what the server answers."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.up, self.deaf, self.swallow_after = True, False, b""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return self.listener.getsockname()[1]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self.up:
                client.close()
                continue
            server = socket.create_connection(self.target)
            self.pairs.append((client, server))
            threading.Thread(target=self._pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        try:
            while data := source.recv(65536):
                if outward and self.swallow_after and self.swallow_after in data:
                    # The statement reaches the server; its answer never comes back.
                    self.deaf = True
                    sink.sendall(data)
                    time.sleep(0.3)
                    self.cut()
                    return
                if not outward and self.deaf:
                    continue
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                end.close()

    def cut(self) -> None:
        self.up = False
        # Taken out first: who was cut may be back before the last one is.
        pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def back(self) -> None:
        self.up, self.deaf, self.swallow_after = True, False, b""


@pytest.fixture
def proxied(postgresql: str, keys: Keys, tmp_path: Path) -> tuple[Ledger, Proxy]:
    """A log on a server that is reached through a proxy."""
    url = sql.make_url(postgresql)
    proxy = Proxy(url.host or "127.0.0.1", url.port or 5432)
    through = url.set(host="127.0.0.1", port=proxy.port).update_query_dict({"sslmode": "disable"})
    ledger = open_ledger(through.render_as_string(hide_password=False), keys, AuditSettings(head_every=8, heads=str(tmp_path / "heads.jsonl")))
    yield ledger, proxy
    ledger.close()
    proxy.listener.close()


def test_postgresql_lost_and_back(proxied: tuple[Ledger, Proxy]) -> None:
    ledger, proxy = proxied
    assert ledger.append([event(0), event(1)])[-1].index == 1
    proxy.cut()
    for _ in range(3):
        with pytest.raises(LedgerError, match="cannot write to the log in postgresql"):
            ledger.record(event(2))
    proxy.back()
    assert ledger.record(event(2)) == 2
    assert ledger.state().fault is None


def test_postgresql_lost_in_the_moment_of_the_commit_makes_no_fork(proxied: tuple[Ledger, Proxy]) -> None:
    ledger, proxy = proxied
    ledger.append([event(0)])
    proxy.swallow_after = b"COMMIT\x00"
    with pytest.raises(LedgerError, match="cannot write to the log"):
        ledger.record(event(1))
    proxy.back()
    # The server had committed: the entry is there although nobody was told, and the next one follows it.
    assert ledger.record(event(2)) == 2
    assert [entry.facts["request"] for entry in ledger.entries()] == [0, 1, 2]
    assert ledger.state().fault is None


def test_postgresql_connection_terminated_by_the_server(ledger: Ledger, where: str | Path) -> None:
    if isinstance(where, Path):
        pytest.skip("a server's matter")
    ledger.record(event(0))
    killer = sql.create_engine(SERVER)
    with ledger._engine.connect() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    with killer.begin() as connection:
        assert connection.execute(sql.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid}).scalar_one()
    killer.dispose()
    # The pool finds dead connections out before it hands them on.
    assert ledger.record(event(1)) == 1
    assert ledger.state().fault is None


def test_a_password_is_in_no_message(keys: Keys, tmp_path: Path) -> None:
    with pytest.raises(LedgerError) as caught:
        open_ledger("postgresql://me:hunter2@127.0.0.1:1/none", keys, AuditSettings(heads=str(tmp_path / "heads.jsonl")))
    assert "hunter2" not in str(caught.value)
    assert "***" in str(caught.value)


def test_entries_written_behind_its_back_are_a_fault(ledger: Ledger) -> None:
    ledger.record(event(0))
    execute(ledger, "INSERT INTO ledger_entries (number, envelope, leaf) SELECT 1, envelope, leaf FROM ledger_entries WHERE number = 0")
    with pytest.raises(LedgerError):
        ledger.record(event(1))
    assert "stands entry 0" in (ledger.state().fault or "")
