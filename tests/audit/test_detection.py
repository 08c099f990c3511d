"""Nothing can be changed, removed, added, moved, cut or rolled back without being found out."""

from __future__ import annotations

import io
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.conftest import Reopen, event, execute
from metier.audit import AuditSettings, Keys, Ledger, open_ledger, reading
from metier.audit.logfile import check_log
from metier.audit.tables import connect
from metier.audit.witness import HeadsFile
from metier.errors import LedgerError

TABLES = {
    "ledger_facts": ["id", "facts"],
    "ledger_entries": ["number", "envelope", "leaf"],
    "ledger_bodies": ["number", "key", "sealed"],
    "ledger_keys": ["id", "subject", "wrapped"],
    "ledger_heads": ["size", "note", "frontier"],
    "ledger_newest": ["id", "note", "frontier"],
}


@dataclass(frozen=True)
class Kept:
    """A finished log in a folder, which tests copy before they touch it."""

    folder: Path
    keys: Keys

    def copy(self, place: Path) -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder, place)
        return place

    def fault(self, folder: Path) -> str | None:
        engine = connect(folder / "ledger.sqlite")
        try:
            return reading.verify_database(engine, HeadsFile(folder / "ledger.heads.jsonl"), self.keys.public).fault
        finally:
            engine.dispose()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("kept")
    keys = Keys.open(tmp_path_factory.mktemp("keys"))
    with open_ledger(folder / "ledger.sqlite", keys, AuditSettings(head_every=8)) as ledger:
        for number in range(0, 30, 3):
            ledger.append([event(number, subject="Zhang Wei"), event(number + 1), event(number + 2, body=False)])
        ledger.erase("Zhang Wei", actor="officer")
        ledger.append([event(31, subject="Zhang Wei"), event(32, subject="Li Na")])
        ledger.export(folder / "log.jsonl")
    kept = Kept(folder, keys)
    assert kept.fault(folder) is None
    return kept


def rows(folder: Path) -> Iterator[tuple[str, int, str, bytes | str | int]]:
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        for table, columns in TABLES.items():
            for row in connection.execute(f"SELECT rowid, {', '.join(columns)} FROM {table}").fetchall():
                yield from ((table, row[0], column, value) for column, value in zip(columns, row[1:], strict=True))
    connection.close()


def change(folder: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(folder / "ledger.sqlite")
    with connection:
        connection.execute(statement, values)
    connection.close()


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_change_of_one_byte_in_any_row_is_found(kept: Kept, tmp_path: Path, data: st.DataObject) -> None:
    folder = kept.copy(tmp_path / "copy")
    cells = [cell for cell in rows(folder) if cell[3] not in (b"", "")]
    # A table first: entries have by far the most rows.
    table = data.draw(st.sampled_from(sorted(TABLES)))
    _, row, column, value = data.draw(st.sampled_from([cell for cell in cells if cell[0] == table]))
    if isinstance(value, int):
        changed: object = value + data.draw(st.integers(1, 2**40))
    else:
        raw = bytearray(value.encode() if isinstance(value, str) else value)
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] ^= data.draw(st.integers(1, 127 if isinstance(value, str) else 255))
        changed = raw.decode() if isinstance(value, str) else bytes(raw)
    try:
        change(folder, f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changed, row)
    except sqlite3.IntegrityError:
        return
    assert kept.fault(folder) is not None, (table, row, column)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_removed_row_is_found(kept: Kept, tmp_path: Path, data: st.DataObject) -> None:
    folder = kept.copy(tmp_path / "copy")
    table = data.draw(st.sampled_from(sorted(TABLES)))
    row = data.draw(st.sampled_from(sorted({cell[1] for cell in rows(folder) if cell[0] == table})))
    change(folder, f"DELETE FROM {table} WHERE rowid = ?", row)
    assert kept.fault(folder) is not None, (table, row)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_added_row_is_found(kept: Kept, tmp_path: Path, table: str) -> None:
    folder = kept.copy(tmp_path / "copy")
    first, *rest = TABLES[table]
    shown = ", ".join(rest)
    change(folder, f"INSERT INTO {table} ({first}, {shown}) SELECT '999', {shown} FROM {table} ORDER BY rowid LIMIT 1")
    assert kept.fault(folder) is not None


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_entries_that_change_places_are_found(kept: Kept, tmp_path: Path, data: st.DataObject) -> None:
    folder = kept.copy(tmp_path / "copy")
    table = data.draw(st.sampled_from(["ledger_entries", "ledger_bodies", "ledger_heads"]))
    numbers = sorted({cell[1] for cell in rows(folder) if cell[0] == table})
    one, other = data.draw(st.lists(st.sampled_from(numbers), min_size=2, max_size=2, unique=True))
    key = TABLES[table][0]
    for old, new in ((one, -1), (other, one), (-1, other)):
        change(folder, f"UPDATE {table} SET {key} = ? WHERE {key} = ?", new, old)
    assert kept.fault(folder) is not None


@given(st.integers(1, 33))
@settings(max_examples=33, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_tail_is_found_however_much_is_cut(kept: Kept, tmp_path: Path, count: int) -> None:
    folder = kept.copy(tmp_path / "copy")
    for table, key in (("ledger_entries", "number"), ("ledger_bodies", "number"), ("ledger_heads", "size")):
        change(folder, f"DELETE FROM {table} WHERE {key} >= ?", 33 - count + (table == "ledger_heads"))
    assert kept.fault(folder) is not None
    # As if an earlier stored head had been the newest: signed, consistent, and yet too short for the heads file.
    change(folder, "UPDATE ledger_newest SET (note, frontier) = (SELECT note, frontier FROM ledger_heads ORDER BY size DESC LIMIT 1)")
    assert kept.fault(folder) is not None


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_change_of_the_exported_log_is_found(kept: Kept, data: st.DataObject) -> None:
    whole = (kept.folder / "log.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    kind = data.draw(st.sampled_from(["byte", "insert", "remove", "cut", "line removed", "line doubled", "lines moved"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    line, other = data.draw(st.lists(st.integers(0, len(lines) - 1), min_size=2, max_size=2, unique=True))
    if kind == "byte":
        changed = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    elif kind == "insert":
        changed = whole[:place] + data.draw(st.binary(min_size=1, max_size=3)) + whole[place:]
    elif kind == "remove":
        changed = whole[:place] + whole[place + 1 :]
    elif kind == "cut":
        changed = whole[:place]
    elif kind == "line removed":
        changed = b"".join(lines[:line] + lines[line + 1 :])
    elif kind == "line doubled":
        changed = b"".join([*lines[:line], lines[other], *lines[line:]])
    else:
        lines[line], lines[other] = lines[other], lines[line]
        changed = b"".join(lines)
    if changed == whole:
        return
    with pytest.raises(LedgerError):
        check_log(io.BytesIO(changed), kept.keys.public)


def test_every_byte_of_a_short_exported_log_matters(tmp_path: Path, keys: Keys) -> None:
    with open_ledger(tmp_path / "ledger.sqlite", keys, AuditSettings(head_every=2)) as ledger:
        ledger.append([event(number) for number in range(3)])
        ledger.export(tmp_path / "log.jsonl")
    whole = (tmp_path / "log.jsonl").read_bytes()
    assert check_log(io.BytesIO(whole)).intact
    for place in range(len(whole)):
        for bit in (1, 32, 128):
            changed = bytearray(whole)
            changed[place] ^= bit
            with pytest.raises(LedgerError):
                check_log(io.BytesIO(bytes(changed)))


def test_every_byte_of_the_heads_file_matters(kept: Kept, tmp_path: Path) -> None:
    folder = kept.copy(tmp_path / "copy")
    path = folder / "ledger.heads.jsonl"
    whole = path.read_bytes()
    # Every byte of the slots, padding included, and a sample of the stored heads.
    for place in [*range(0, 2048, 7), *range(2048, len(whole), 11), len(whole) - 1]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert kept.fault(folder) is not None, place
    lines = whole[2048:].splitlines(keepends=True)
    for number in range(len(lines)):
        path.write_bytes(whole[:2048] + b"".join(lines[:number] + lines[number + 1 :]))
        assert kept.fault(folder) is not None
    path.unlink()
    assert "is gone" in (kept.fault(folder) or "")


def test_the_fault_names_the_entry(kept: Kept, tmp_path: Path) -> None:
    folder = kept.copy(tmp_path / "copy")
    change(folder, "UPDATE ledger_entries SET envelope = CAST(replace(CAST(envelope AS TEXT), 'keeper-2', 'keeper-1') AS BLOB) WHERE number = 17")
    assert (kept.fault(folder) or "").startswith("entry 17 was changed")
    folder = kept.copy(tmp_path / "copy")
    change(folder, "DELETE FROM ledger_entries WHERE number = 9")
    assert (kept.fault(folder) or "").startswith("entry 9 is missing")
    folder = kept.copy(tmp_path / "copy")
    change(folder, "UPDATE ledger_bodies SET sealed = zeroblob(40) WHERE number = 4")
    assert kept.fault(folder) == "the encrypted body of entry 4 was changed"
    folder = kept.copy(tmp_path / "copy")
    change(folder, "DELETE FROM ledger_keys WHERE id = (SELECT key FROM ledger_bodies WHERE number = 1)")
    assert kept.fault(folder) == "the key of the body of entry 1 is gone, and no erasure was logged"


def test_a_rewrite_with_right_hashes_is_found_by_the_signed_heads(kept: Kept, tmp_path: Path) -> None:
    from metier.audit.merkle import leaf_hash

    folder = kept.copy(tmp_path / "copy")
    (envelope,) = [value for table, row, column, value in rows(folder) if (table, row, column) == ("ledger_entries", 12, "envelope")]
    forged = bytes(envelope).replace(b"keeper-0", b"keeper-1")
    change(folder, "UPDATE ledger_entries SET envelope = ?, leaf = ? WHERE number = 12", forged, leaf_hash(forged))
    fault = kept.fault(folder) or ""
    assert "first 18 entries were signed: an entry between 9 and 17 was changed" in fault


def test_a_whole_log_rewritten_with_the_stolen_key_is_found_by_the_heads_file(ledger: Ledger, heads: Path, keys: Keys, tmp_path: Path) -> None:
    ledger.append([event(number) for number in range(10)])
    witnessed = heads.read_bytes()
    forged = tmp_path / "forged"
    forged.mkdir()
    with open_ledger(forged / "ledger.sqlite", keys, AuditSettings(head_every=8)) as other:
        other.append([event(number) for number in range(10)])
        assert other.state().intact
    (forged / "ledger.heads.jsonl").write_bytes(witnessed)
    with pytest.raises(LedgerError, match="the heads file belongs to another log"):
        open_ledger(forged / "ledger.sqlite", keys)


def test_an_older_copy_of_the_database_is_refused(tmp_path: Path, keys: Keys) -> None:
    """Even one entry that is rolled back, long before the next stored head."""
    path = tmp_path / "ledger.sqlite"
    with open_ledger(path, keys) as ledger:
        ledger.append([event(number) for number in range(10)])
        old = ledger.head()
    copy = {item: item.read_bytes() for item in tmp_path.glob("ledger.sqlite*")}
    with open_ledger(path, keys) as ledger:
        ledger.record(event(10))
    for item in tmp_path.glob("ledger.sqlite*"):
        item.unlink()
    for item, data in copy.items():
        item.write_bytes(data)
    with pytest.raises(
        LedgerError, match=r"the database holds 10 entries, and 11 were signed and recorded in the heads file: the tail was cut, or an older copy"
    ):
        open_ledger(path, keys)
    engine = connect(path)
    verdict = reading.verify_database(engine, HeadsFile(tmp_path / "ledger.heads.jsonl"), keys.public)
    engine.dispose()
    assert not verdict.intact
    assert "11" in (verdict.fault or "")
    assert old.size == 10


def test_a_log_cut_while_it_is_open_takes_no_more_entries(ledger: Ledger, reopen: Reopen) -> None:
    ledger.append([event(number) for number in range(10)])
    execute(ledger, "DELETE FROM ledger_entries WHERE number >= 8")
    execute(ledger, "DELETE FROM ledger_bodies WHERE number >= 8")
    execute(
        ledger, "UPDATE ledger_newest SET note = (SELECT note FROM ledger_heads WHERE size = 0), frontier = (SELECT frontier FROM ledger_heads WHERE size = 0)"
    )
    with pytest.raises(LedgerError, match="metier audit verify"):
        ledger.record(event(10))
    with pytest.raises(LedgerError, match="metier audit verify"):
        reopen()
    assert not ledger.state().intact


def test_a_log_rewritten_below_an_open_one_takes_no_more_entries(ledger: Ledger, where: str | Path, keys: Keys, reopen: Reopen, tmp_path: Path) -> None:
    """Somebody with the keys appends to an older copy: same origin, as many entries, another history."""
    if not isinstance(where, Path):
        pytest.skip("copies files of SQLite")
    ledger.record(event(0))
    heads = ledger._heads.path
    fork = tmp_path / "fork"
    shutil.copytree(where.parent, fork, ignore=shutil.ignore_patterns("keys"))
    ledger.record(event(1))
    with open_ledger(fork / where.name, keys, AuditSettings(head_every=8)) as other:
        other.append([event(7), event(8)])
    ledger.close()
    for path in where.parent.glob("ledger.sqlite*"):
        path.unlink()
    for path in fork.glob("ledger.sqlite*"):
        shutil.copy(path, where.parent)
    with pytest.raises(LedgerError, match=r"the log was cut or rewritten while it was open|the log was rewritten: its first 2 entries"):
        ledger.record(event(2))
    assert heads.exists()
    with pytest.raises(LedgerError, match="the log was rewritten: its first 2 entries are not those that the heads file records"):
        reopen()


def test_a_deleted_database_is_not_begun_again(tmp_path: Path, keys: Keys) -> None:
    with open_ledger(tmp_path / "ledger.sqlite", keys) as ledger:
        ledger.record(event())
    for path in tmp_path.glob("ledger.sqlite*"):
        path.unlink()
    with pytest.raises(LedgerError, match=r"records one of 1 entries: the database was deleted or exchanged\n    -> restore the database"):
        open_ledger(tmp_path / "ledger.sqlite", keys)


def test_a_lost_heads_file_is_refused_until_it_is_asked_for(ledger: Ledger, heads: Path, reopen: Reopen, where: str | Path, keys: Keys) -> None:
    ledger.append([event(number) for number in range(10)])
    heads.unlink()
    with pytest.raises(LedgerError, match="the second record of the log's heads is gone"):
        ledger.record(event(10))
    with pytest.raises(LedgerError, match="metier audit head --restore"):
        reopen()
    with open_ledger(where, keys, AuditSettings(head_every=8), restore_heads=True) as restored:
        assert restored.state().fault is None
        assert restored.record(event(10)) == 10
        assert restored.state().fault is None


def test_a_lost_heads_file_is_not_written_from_a_database_that_was_cut(ledger: Ledger, heads: Path, where: str | Path, keys: Keys) -> None:
    ledger.append([event(number) for number in range(10)])
    heads.unlink()
    execute(ledger, "DELETE FROM ledger_entries WHERE number = 9")
    with pytest.raises(LedgerError, match="but 10 entries were signed"):
        open_ledger(where, keys, AuditSettings(head_every=8), restore_heads=True)
    assert not heads.exists()


def test_a_slot_that_a_power_cut_left_torn_is_mended(ledger: Ledger, heads: Path, reopen: Reopen) -> None:
    ledger.append([event(0)])
    ledger.append([event(1)])
    for slot in (0, 1):
        whole = heads.read_bytes()
        heads.write_bytes(whole[: slot * 1024 + 100] + b"\0" * 900 + whole[slot * 1024 + 1000 :])
        assert "heads in the heads file was changed or not fully written" in (ledger.state().fault or "")
        again = reopen()
        assert again.state().fault is None
    with heads.open("ab") as stream:
        stream.write(b'{"head":"metier')
    assert "it was cut" in (ledger.state().fault or "")
    assert reopen().record(event(2)) == 2
    ledger.append([event(number) for number in range(20)])
    assert ledger.state().fault is None


def test_an_earlier_head_that_somebody_kept_convicts_a_cut_log(kept: Kept, tmp_path: Path, keys: Keys) -> None:
    with open_ledger(tmp_path / "ledger.sqlite", keys) as ledger:
        ledger.append([event(0)])
        ledger.export(tmp_path / "early.jsonl")
        ledger.append([event(1)])
        head = ledger.head()
        ledger.export(tmp_path / "late.jsonl")
    assert check_log((tmp_path / "late.jsonl").open("rb"), keys.public, [head]).intact
    with pytest.raises(LedgerError, match=r"a head of 2 entries was signed, and the log has 1"):
        check_log((tmp_path / "early.jsonl").open("rb"), keys.public, [head])
    with pytest.raises(LedgerError, match="belongs to another log"):
        check_log((kept.folder / "log.jsonl").open("rb"), None, [head])
