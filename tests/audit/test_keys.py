"""Keys: made once, all at once, private; never made anew for a log that has some."""

from __future__ import annotations

import base64
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audit.conftest import Reopen, event
from metier.audit import Keys, Ledger, PublicKey
from metier.errors import LedgerError


def test_keys_are_made_on_first_use_for_the_owner_only(tmp_path: Path) -> None:
    keys = Keys.open(tmp_path / "keys")
    assert not keys.exist
    assert len(keys.key_id) == 64
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(keys.folder.parent.stat().st_mode) == 0o700
    for name in ("signing-key.pem", "body-key"):
        assert stat.S_IMODE((keys.folder / name).stat().st_mode) == 0o600
    again = Keys.open(tmp_path / "keys")
    assert (again.key_id, again.body_key, again.token("a person")) == (keys.key_id, keys.body_key, keys.token("a person"))
    assert PublicKey.from_pem(keys.public_pem).signed(again.sign(b"text"), b"text")
    assert not PublicKey.from_pem(keys.public_pem).signed(again.sign(b"text"), b"test")


def test_keys_are_not_shown(keys: Keys) -> None:
    assert base64.b64encode(keys.body_key).decode() not in repr(keys) + str(vars(keys))


def test_several_first_uses_at_once_make_one_pair(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: Keys.open(tmp_path / "keys").key_id, range(8)))
    assert len(found) == 1
    assert [path.name for path in (tmp_path / "keys").iterdir()] == ["ledger"]


@pytest.mark.parametrize("name", ["signing-key.pem", "body-key", "public-key.pem"])
def test_one_missing_file_is_refused_and_not_made(keys: Keys, name: str) -> None:
    assert keys.public_pem
    (keys.folder / name).unlink()
    with pytest.raises(LedgerError, match=rf"{name} is missing\n    -> restore the folder"):
        Keys.open(keys.folder.parent)
    assert not (keys.folder / name).exists()


@pytest.mark.parametrize("name", ["signing-key.pem", "body-key"])
@pytest.mark.parametrize("content", [b"", b"no key", b"AAAA\n"])
def test_a_damaged_key_is_refused(keys: Keys, name: str, content: bytes) -> None:
    assert keys.public_pem
    (keys.folder / name).write_bytes(content)
    with pytest.raises(LedgerError, match="does not hold the key it should"):
        Keys.open(keys.folder.parent)


def test_keys_that_others_may_read_are_refused(keys: Keys) -> None:
    assert keys.public_pem
    (keys.folder / "body-key").chmod(0o644)
    with pytest.raises(LedgerError, match=r"others than the owner may open .*body-key, which holds keys\n    -> chmod 600"):
        Keys.open(keys.folder.parent)
    (keys.folder / "body-key").chmod(0o600)
    keys.folder.chmod(0o755)
    with pytest.raises(LedgerError, match="chmod 700"):
        Keys.open(keys.folder.parent)


def test_a_log_whose_keys_are_gone_is_refused_and_no_new_ones_are_made(ledger: Ledger, keys: Keys, reopen: Reopen) -> None:
    ledger.record(event())
    shutil.rmtree(keys.folder)
    keys._loaded = None
    with pytest.raises(LedgerError, match=r"the log is there and its keys are gone: .*\n    -> restore the folder from its backup; no new keys"):
        reopen()
    assert not keys.folder.exists()


def test_a_log_of_other_keys_is_refused(ledger: Ledger, keys: Keys, reopen: Reopen, tmp_path: Path) -> None:
    ledger.record(event())
    other = Keys.open(tmp_path / "other")
    assert other.public_pem
    body = (keys.folder / "body-key").read_bytes()
    (keys.folder / "body-key").write_bytes((other.folder / "body-key").read_bytes())
    keys._loaded = None
    with pytest.raises(LedgerError, match="the body key in .* is not the log's"):
        reopen()
    for name in ("signing-key.pem", "public-key.pem"):
        (keys.folder / name).write_bytes((other.folder / name).read_bytes())
    (keys.folder / "body-key").write_bytes(body)
    keys._loaded = None
    with pytest.raises(LedgerError, match="the log was signed with another key than the one in"):
        reopen()


def test_a_public_key_has_one_form(keys: Keys) -> None:
    pem = keys.public_pem
    for changed in (pem + b"\n", pem.replace(b"\n", b"\r\n"), b"# a comment\n" + pem, pem[:-2]):
        with pytest.raises(LedgerError):
            PublicKey.from_pem(changed)
