"""The ledger on both databases: what goes in comes out, in order, once, durable, with nothing in the open that should not be."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sql

from audit.conftest import Reopen, event
from metier.audit import AuditSettings, Keys, Ledger, open_ledger
from metier.audit.entries import commitment
from metier.audit.merkle import is_consistent, is_included
from metier.errors import LedgerError, MetierError
from metier.events import Event, Record, now


def test_what_is_recorded_is_read_back_in_order(ledger: Ledger) -> None:
    record: Record = ledger.record
    assert [record(event(number)) for number in range(5)] == [0, 1, 2, 3, 4]
    receipts = ledger.append([event(5), event(6, body=False)])
    assert [receipt.index for receipt in receipts] == [5, 6]
    entries = list(ledger.entries())
    assert [entry.index for entry in entries] == list(range(7))
    assert [entry.facts["request"] for entry in entries] == list(range(7))
    assert [entry.leaf_hash for entry in entries[5:]] == [receipt.leaf_hash for receipt in receipts]
    assert entries[6].commitment is None
    assert [entry.index for entry in ledger.entries(2, 4)] == [2, 3]
    assert ledger.append([]) == []
    state = ledger.state()
    assert (state.size, state.intact, state.fault, state.root) == (7, True, None, ledger.head().root.hex())


def test_a_log_goes_on_where_it_ended(ledger: Ledger, reopen: Reopen) -> None:
    ledger.append([event(number) for number in range(20)])
    first = ledger.head()
    ledger.close()
    again = reopen()
    assert again.origin == first.origin
    assert again.record(event(20)) == 20
    second = again.head()
    assert is_consistent(first.size, second.size, again.consistency(first.size, second.size), first.root, second.root)
    assert again.state().intact


def test_every_entry_and_every_earlier_head_can_be_proved(ledger: Ledger) -> None:
    heads = []
    for number in range(0, 40, 3):
        ledger.append([event(number), event(number + 1), event(number + 2)])
        heads.append(ledger.head())
    last = heads[-1]
    for entry in ledger.entries():
        assert is_included(bytes.fromhex(entry.leaf_hash), entry.index, last.size, ledger.inclusion(entry.index, last.size), last.root)
    for head in heads:
        assert is_consistent(head.size, last.size, ledger.consistency(head.size, last.size), head.root, last.root)


def test_proofs_of_a_log_of_several_blocks(tmp_path: Path, keys: Keys) -> None:
    with open_ledger(tmp_path / "ledger.sqlite", keys) as ledger:
        ledger.append([event(number, body=False) for number in range(3000)])
        old = ledger.head()
        ledger.append([event(number, body=False) for number in range(300)])
        new = ledger.head()
        for index in (0, 1023, 1024, 2047, 2999, 3000, 3299):
            (entry,) = ledger.entries(index, index + 1)
            assert is_included(bytes.fromhex(entry.leaf_hash), index, 3300, ledger.inclusion(index, 3300), new.root)
        assert is_consistent(3000, 3300, ledger.consistency(3000, 3300), old.root, new.root)


def test_bodies_are_encrypted_and_bound_by_a_salted_commitment(ledger: Ledger, tmp_path: Path) -> None:
    index = ledger.record(event(1, subject="Zhang Wei"))
    body = ledger.body(index)
    assert body is not None
    assert body.value == {"question": "how many frames 1?", "answer": "七"}
    (entry,) = ledger.entries(index, index + 1)
    assert entry.commitment == commitment(body.salt, body.encoded)
    with ledger._engine.connect() as connection:
        stored = b"".join(
            bytes(item)
            for table in ("bodies", "entries", "keys")
            for row in connection.execute(sql.text(f"SELECT * FROM ledger_{table}"))
            for item in row
            if isinstance(item, bytes)
        )
    assert b"how many frames" not in stored
    assert b"Zhang" not in stored
    assert body.salt not in stored
    same = [ledger.record(event(1)), ledger.record(event(1))]
    commitments = {item.commitment for number in same for item in ledger.entries(number, number + 1)}
    assert len(commitments) == 2


def test_a_subject_is_erased_and_the_log_still_verifies(ledger: Ledger, reopen: Reopen) -> None:
    for number in range(6):
        ledger.record(event(number, subject="Zhang Wei" if number % 2 else "Li Na"))
    receipt = ledger.erase("Zhang Wei", actor="officer", reason="request 17")
    with pytest.raises(LedgerError, match="the body of entry 1 was erased"):
        ledger.body(1)
    assert ledger.body(0) is not None
    (erasure,) = ledger.find(kind="erasure")
    assert (erasure.index, erasure.actor, erasure.facts) == (receipt.index, "officer", {"reason": "request 17"})
    assert [item.index for item in ledger.find(subject="Zhang Wei")] == [1, 3, 5, 6]
    later = ledger.record(event(7, subject="Zhang Wei"))
    assert ledger.body(later) is not None
    for log in (ledger, reopen()):
        assert log.state().fault is None
        with pytest.raises(LedgerError, match="erased"):
            log.body(5)


def test_an_erased_key_is_in_no_file_of_the_database(tmp_path: Path, keys: Keys) -> None:
    with open_ledger(tmp_path / "ledger.sqlite", keys) as ledger:
        ledger.record(event(1, subject="Zhang Wei"))
        ledger.record(event(2, subject="Li Na"))
        with ledger._engine.connect() as connection:
            rows = connection.execute(sql.text("SELECT subject, wrapped FROM ledger_keys")).all()
        wrapped = dict(map(tuple, rows))
        ledger.erase("Zhang Wei", actor="officer")
        files = b"".join(path.read_bytes() for path in tmp_path.glob("ledger.sqlite*"))
        assert wrapped[keys.token("Zhang Wei")] not in files
        assert wrapped[keys.token("Li Na")] in files


def test_find_compares_whole_values(ledger: Ledger) -> None:
    ledger.append([Event("artifact", "a", now(), {"digest": "ab", "n": 1}), Event("artifact", "b", now(), {"digest": "abc", "n": 1, "note": '"digest":"ab"'})])
    assert [item.index for item in ledger.find(digest="ab")] == [0]
    assert [item.index for item in ledger.find(kind="artifact", n=1)] == [0, 1]
    assert [item.index for item in ledger.find(actor="b")] == [1]
    assert [item.index for item in ledger.find(n=True)] == []
    assert list(ledger.find(kind="release")) == []


INJECTED = 'mallory\r\n{"entry":1}\x1b[2J\x1b]0;owned\x07\u2028\u2029\u202egnp.exe\u2066\x7f\x00\u0085'


def test_log_injection_is_text_in_the_log(ledger: Ledger, tmp_path: Path) -> None:
    index = ledger.record(Event("access", INJECTED, f"now{INJECTED}", {INJECTED: INJECTED, "model": "../../x\ud800"}, None, INJECTED))
    (entry,) = ledger.entries(index, index + 1)
    assert entry.actor == INJECTED
    assert entry.facts[INJECTED] == INJECTED
    assert all(32 <= byte < 127 for byte in entry.envelope)
    assert INJECTED not in (entry.subject or "")
    ledger.export(tmp_path / "log.jsonl")
    data = (tmp_path / "log.jsonl").read_bytes()
    assert all(32 <= byte < 127 or byte == 10 for byte in data)
    assert data.count(b"\n") == 1 + 1 + 1 + 1
    assert [json.loads(line) for line in data.splitlines()]
    assert ledger.state().intact


def test_clocks_that_go_backwards_are_recorded_as_given_and_order_stays(ledger: Ledger) -> None:
    times = ["2026-01-31T12:00:00.000000Z", "2026-01-31T11:00:00.000000Z", "1970-01-01T00:00:00.000000Z", "2026-01-31T12:00:01.000000Z", "no time at all"]
    for time in times:
        ledger.record(Event("access", "a", time))
    assert [entry.time for entry in ledger.entries()] == times
    verdict = ledger.verify()
    assert verdict.intact
    assert verdict.facts["earlier_than_the_entry_before"] == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Event("access", "a", now(), {"score": float("nan")}), "facts cannot be kept"),
        (Event("access", "a", now(), {"path": Path("x")}), "facts cannot be kept"),
        (Event("access", "a", now(), {}, {"answer": {1, 2}}), "body cannot be kept"),
        (Event("access", "a", now(), {"long": "x" * 2_000_000}), "facts are too long"),
        (Event("access", 7, now()), "actor is not a text"),  # type: ignore[arg-type]
        (Event("access", "a", 7), "time is not a text"),  # type: ignore[arg-type]
        (Event("access", "a", now(), {}, {}, 7), "subject is not a text"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_kept_is_refused_alone(ledger: Ledger, wrong: Event, message: str) -> None:
    with pytest.raises(LedgerError, match=message):
        ledger.append([event(0), wrong])
    assert ledger.record(event(1)) == 0


def test_deep_nesting_is_refused(ledger: Ledger) -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(LedgerError, match="facts cannot be kept"):
        ledger.record(Event("access", "a", now(), deep))


def test_concurrent_threads_share_commits_and_lose_nothing(ledger: Ledger) -> None:
    indexes: list[int] = []

    def write(thread: int) -> None:
        indexes.extend(ledger.record(event(number, subject=f"s{number % 4}", thread=thread)) for number in range(25))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(indexes) == list(range(400))
    seen = [(entry.facts["thread"], entry.facts["request"]) for entry in ledger.entries()]
    assert Counter(thread for thread, _ in seen) == dict.fromkeys(range(16), 25)
    for thread in range(16):
        assert [number for owner, number in seen if owner == thread] == list(range(25))
    assert ledger.state().fault is None


WRITER = """
import sys
from pathlib import Path
from metier.audit import AuditSettings, Keys, open_ledger
from metier.events import Event, now
where, folder, name = sys.argv[1:]
with open_ledger(where, Keys.open(Path(folder)), AuditSettings(head_every=8)) as ledger:
    for number in range(40):
        print(ledger.record(Event("access", name, now(), {"request": number}, {"n": number}, "shared")), flush=True)
"""


def test_concurrent_processes_begin_one_log_and_make_no_fork(where: str | Path, keys: Keys, reopen: Reopen) -> None:
    command = [sys.executable, "-c", WRITER, str(where), str(keys.folder.parent)]
    running = [subprocess.Popen([*command, f"writer-{number}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for number in range(4)]
    ended = [process.communicate(timeout=120) for process in running]
    assert [error for _, error in ended if error] == []
    assert sorted(int(line) for out, _ in ended for line in out.split()) == list(range(160))
    ledger = reopen()
    assert ledger.state().fault is None
    for number in range(4):
        assert [entry.facts["request"] for entry in ledger.find(actor=f"writer-{number}")] == list(range(40))


def test_two_open_ledgers_take_turns(ledger: Ledger, reopen: Reopen) -> None:
    other = reopen()
    assert [log.record(event(number)) for number, log in enumerate([ledger, other] * 15)] == list(range(30))
    assert ledger.state() == other.state()
    assert ledger.state().intact


def test_machines_with_a_heads_file_each_share_a_log_on_a_server(postgresql: str, keys: Keys, tmp_path: Path) -> None:
    here, there = (AuditSettings(head_every=4, heads=str(tmp_path / name / "heads.jsonl")) for name in ("here", "there"))
    with open_ledger(postgresql, keys, here) as first:
        first.append([event(number) for number in range(5)])
        with pytest.raises(LedgerError, match="the second record of the log's heads is gone"):
            open_ledger(postgresql, keys, there)
        with open_ledger(postgresql, keys, there, restore_heads=True) as second:
            for number in range(5, 40):
                log = (first, second)[number // 7 % 2]
                assert log.record(event(number)) == number
                assert log.state().fault is None
            assert (first.state().fault, second.state().fault) == (None, None)


@pytest.mark.parametrize("where", ["sqlite://", "sqlite:///:memory:", "mysql://host/name", "nonsense://", "://"])
def test_databases_that_will_not_do_are_refused(keys: Keys, where: str) -> None:
    with pytest.raises(MetierError, match="->"):
        open_ledger(where, keys)


def test_settings_refuse_a_password_in_the_project_file() -> None:
    with pytest.raises(ValueError, match="a password does not belong into the project file"):
        AuditSettings(url="postgresql://me:secret@host/log")
    assert AuditSettings(url="postgresql://me@host:5432/log").url
