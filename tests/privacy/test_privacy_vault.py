import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metier.errors import InputError, LedgerError, PrivacyError
from metier.events import Event
from metier.privacy.vault import KeyFile, SubjectTokens, Vault, erase, make_key, restored, tokens_in
from metier.privacy.vault.tables import FILE

NAMES = ["张伟", "欧阳小红", "Jane Doe"]
PURPOSE = "a test of the way back"


@pytest.fixture
def key(tmp_path: Path) -> KeyFile:
    make_key(tmp_path / "keys" / "master")
    return KeyFile(tmp_path / "keys" / "master")


@pytest.fixture
def vault(tmp_path: Path, key: KeyFile) -> Vault:
    return Vault.create(tmp_path / "vault", key, project="clinic-7")


def fill(vault: Vault, subject: str | None, values: list[str], entity: str = "PERSON") -> list[str]:
    tokens = SubjectTokens(vault)
    made = [tokens.token(entity, value) for value in values]
    vault.keep(tokens.entries, subject=subject)
    return made


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def reveal(vault: Vault, tokens: list[str], log: list[Event] | None = None) -> dict[str, str]:
    events = [] if log is None else log
    return {item.token: item.value for item in vault.reveal(tokens, purpose=PURPOSE, name="Li Na", record=events.append)}


def test_every_value_comes_back_and_nothing_of_it_can_be_read_in_the_files(vault: Vault, tmp_path: Path) -> None:
    tokens = fill(vault, "subject-1", NAMES)
    assert list(reveal(vault, tokens).values()) == NAMES
    held = everything(tmp_path / "vault")
    assert not any(value.encode() in held for value in [*NAMES, "subject-1"])
    assert stat.S_IMODE((tmp_path / "vault" / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "vault").stat().st_mode) == 0o700


def test_the_same_value_has_the_same_token_in_any_writing_and_another_project_has_another(vault: Vault, key: KeyFile, tmp_path: Path) -> None:
    assert vault.token("PHONE_NUMBER", "138 1234 5678") == vault.token("PHONE_NUMBER", "13812345678")
    assert vault.token("PERSON", "13812345678") != vault.token("PHONE_NUMBER", "13812345678")
    other = Vault.create(tmp_path / "other", key, project="clinic-8")
    assert other.token("PERSON", "张伟") != vault.token("PERSON", "张伟")


def test_who_reads_and_why_is_recorded_first_and_without_a_record_nothing_is_revealed(vault: Vault) -> None:
    (token,) = fill(vault, None, ["张伟"])
    log: list[Event] = []
    assert reveal(vault, [token], log) == {token: "张伟"}
    assert [(event.kind, event.actor, event.facts["purpose"]) for event in log] == [("access", "Li Na", PURPOSE)]
    assert "张伟" not in repr(log)

    def full(_: Event) -> int:
        raise LedgerError("the log is full")

    with pytest.raises(LedgerError):
        vault.reveal([token], purpose=PURPOSE, name="Li Na", record=full)
    for purpose, name in (("  ", "Li Na"), (PURPOSE, " ")):
        with pytest.raises(InputError):
            vault.reveal([token], purpose=purpose, name=name, record=log.append)
    assert len(log) == 1


def test_a_missing_or_wrong_key_is_said_and_opens_nothing(vault: Vault, key: KeyFile, tmp_path: Path) -> None:
    fill(vault, None, NAMES)
    make_key(tmp_path / "wrong")
    with pytest.raises(PrivacyError, match="another key"):
        Vault(tmp_path / "vault", KeyFile(tmp_path / "wrong"))
    with pytest.raises(PrivacyError, match="missing"):
        Vault(tmp_path / "vault", KeyFile(tmp_path / "nowhere"))
    (tmp_path / "short").write_bytes(b"short")
    with pytest.raises(PrivacyError, match="5 bytes"):
        Vault(tmp_path / "vault", KeyFile(tmp_path / "short"))
    with pytest.raises(PrivacyError, match="no vault"):
        Vault(tmp_path / "empty", key)
    with pytest.raises(PrivacyError, match="never written over"):
        make_key(key.path)


@pytest.mark.parametrize("column", ["entity", "sealed", "subject"])
def test_a_changed_row_does_not_open(vault: Vault, tmp_path: Path, column: str) -> None:
    (token,) = fill(vault, "a", ["张伟"])
    fill(vault, "b", ["欧阳小红"])
    with sqlite3.connect(tmp_path / "vault" / FILE) as connection:
        values = {"entity": "'ADDRESS'", "sealed": "(SELECT sealed FROM originals WHERE subject != o.subject)", "subject": f"'{vault.subject_id('b')}'"}
        connection.execute(f"UPDATE originals AS o SET {column} = {values[column]} WHERE token = ?", (token,))
    with pytest.raises(PrivacyError, match="does not open"):
        reveal(vault, [token])


@pytest.mark.parametrize("reencrypt", [False, True])
def test_after_rotation_tokens_and_originals_are_the_same_under_another_key(vault: Vault, key: KeyFile, tmp_path: Path, reencrypt: bool) -> None:
    tokens = fill(vault, "a", NAMES)
    old = key.read()
    assert vault.rotate(name="Li Na", record=lambda event: 0, reencrypt=reencrypt) == 2
    assert key.read() != old and not key.next.exists()
    again = Vault(tmp_path / "vault", key)
    assert list(reveal(again, tokens).values()) == NAMES
    assert [again.token("PERSON", name) for name in NAMES] == tokens
    (tmp_path / "old").write_bytes(old)
    with pytest.raises(PrivacyError, match="another key"):
        Vault(tmp_path / "vault", KeyFile(tmp_path / "old"))


def test_a_rotation_that_is_killed_at_either_side_of_the_commit_opens_afterwards(
    vault: Vault, key: KeyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = fill(vault, "a", NAMES)
    old = key.read()
    key.prepare()  # killed before the commit: a new key lies beside the old one and nothing is under it
    assert list(reveal(Vault(tmp_path / "vault", key), tokens).values()) == NAMES
    assert key.read() == old and not key.next.exists()

    class Killed(BaseException):
        pass

    def killed(_: KeyFile) -> None:
        raise Killed

    monkeypatch.setattr(KeyFile, "finish", killed)  # killed after the commit, before the files are exchanged
    with pytest.raises(Killed):
        vault.rotate(name="Li Na", record=lambda event: 0)
    monkeypatch.undo()
    assert key.read() == old
    assert list(reveal(Vault(tmp_path / "vault", key), tokens).values()) == NAMES
    assert key.read() != old and not key.next.exists()


def test_a_process_with_the_old_key_follows_a_rotation(vault: Vault, key: KeyFile, tmp_path: Path) -> None:
    other = Vault(tmp_path / "vault", key)
    vault.rotate(name="Li Na", record=lambda event: 0)
    tokens = fill(other, "new", NAMES)
    assert list(reveal(Vault(tmp_path / "vault", key), tokens).values()) == NAMES


def test_one_person_is_forgotten_and_the_others_stay(vault: Vault, key: KeyFile, tmp_path: Path) -> None:
    mine, others = fill(vault, "a", ["张伟", "13812345678"]), fill(vault, "b", ["张伟", "Jane Doe"])
    backup = tmp_path / "backup.sqlite"
    with sqlite3.connect(tmp_path / "vault" / FILE) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    (tmp_path / "report.txt").write_text("来电 13812345678", encoding="utf-8")
    (tmp_path / "safe.txt").write_text(f"[PERSON:{mine[0]}]", encoding="utf-8")
    with sqlite3.connect(tmp_path / "vault" / FILE) as connection:
        sealed = [row[0] for row in connection.execute("SELECT sealed FROM originals WHERE subject = ?", (vault.subject_id("a"),))]
    log: list[Event] = []
    done = erase(vault, "a", purpose="asked for", name="Li Na", record=log.append, also=[backup, tmp_path / "report.txt", tmp_path / "safe.txt"])
    assert (done.originals, [Path(path).name for path in done.still_in]) == (2, ["backup.sqlite", "report.txt"])
    held = everything(tmp_path / "vault")
    assert len(sealed) == 2 and not any(item in held for item in sealed)
    assert log[0].kind == "erasure" and "张伟" not in repr(log)
    assert reveal(vault, mine[1:]) == {}
    assert reveal(vault, others) == {others[0]: "张伟", others[1]: "Jane Doe"}
    with pytest.raises(PrivacyError, match="nothing of this person"):
        erase(vault, "a", purpose="asked for", name="Li Na", record=log.append)


def test_two_values_with_one_token_are_noticed_and_nothing_is_kept(vault: Vault, key: KeyFile, tmp_path: Path) -> None:
    short = Vault(tmp_path / "vault", key, token_bytes=1)
    values = [str(number) for number in range(400)]
    with pytest.raises(PrivacyError, match="two values of PERSON have one token"):
        fill(short, None, values)
    assert short.state().originals == 0


def test_a_hundred_thousand_tokens_do_not_collide(vault: Vault) -> None:
    assert len({vault.token("PERSON", f"value {number}") for number in range(100_000)}) == 100_000


WRITER = """
import sys
from pathlib import Path
from metier.privacy.vault import KeyFile, SubjectTokens, Vault
folder, key, mark = Path(sys.argv[1]), KeyFile(Path(sys.argv[2])), sys.argv[3]
vault = Vault(folder, key)
for number in range(60):
    tokens = SubjectTokens(vault)
    tokens.token("PERSON", f"{mark} {number}")
    tokens.token("PERSON", f"both {number}")
    vault.keep(tokens.entries, subject=f"subject {number % 7}")
"""


def test_two_processes_write_at_once_and_nothing_is_lost(vault: Vault, key: KeyFile, tmp_path: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "vault"), str(key.path), mark]) for mark in ("one", "two")]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    assert vault.state().subjects == 7 and vault.state().originals == 180
    tokens = [vault.token("PERSON", f"{mark} {number}") for mark in ("one", "two", "both") for number in range(60)]
    assert len(reveal(vault, tokens)) == 180


@given(st.lists(st.text(min_size=1, max_size=40).filter(lambda text: any(map(str.isalnum, text))), min_size=1, max_size=8, unique=True))
@settings(max_examples=15, deadline=None)
def test_any_text_makes_the_round_trip(tmp_path_factory: pytest.TempPathFactory, values: list[str]) -> None:
    folder = tmp_path_factory.mktemp("vault")
    make_key(folder / "key")
    vault = Vault.create(folder / "vault", KeyFile(folder / "key"), project="p")
    for value in values:
        (token,) = fill(vault, "s", [value])
        assert vault.token("PERSON", reveal(vault, [token])[token]) == token


def test_tokens_in_a_text_are_restored_and_unknown_ones_stay(vault: Vault) -> None:
    (token,) = fill(vault, None, ["张伟"])
    text = f"[PERSON:{token}]来电，[PERSON:aaaaaaaaaaaaaaaa]未接，[ADDRESS:{token}]"
    assert tokens_in(text) == [token, "aaaaaaaaaaaaaaaa"]
    found = {item.token: item for item in vault.reveal(tokens_in(text), purpose=PURPOSE, name="Li Na", record=lambda event: 0)}
    assert restored(text, found) == f"张伟来电，[PERSON:aaaaaaaaaaaaaaaa]未接，[ADDRESS:{token}]"
