"""Bundles, proofs and exported logs as a stranger sees them: with this package's verifying half and `cryptography`, nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import metier
from audit.conftest import event
from metier.audit import AuditSettings, Keys, Verdict, offline, open_ledger, write_bundle
from metier.audit.places import Places
from metier.audit.verify import main, read_key, read_known_heads, verify
from metier.digest import digest_of
from metier.errors import InputError, LedgerError
from metier.events import Event, now

STATEMENT = {"predicateType": "https://metier.example/decision/v1", "predicate": {"verdict": "pass", "note": "蜜蜂"}}


def manifest() -> bytes:
    value = {"metier": 1, "kind": "decision", "parents": [], "facts": {"verdict": "pass", "名": "蜂"}, "files": {}}
    return json.dumps({**value, "digest": digest_of(value)}, ensure_ascii=False).encode()


@dataclass(frozen=True)
class Made:
    """A bundle, an exported log and a proof of one log."""

    folder: Path
    keys: Keys
    other: Keys

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"


FILES: dict[str, bytes] = {
    "decision.json": b'{"verdict":"pass"}',
    "evidence/residue.json": b'{"hits":0}',
    "evaluation/scores.json": b'{"task":0.91}',
    "manifests/decision.json": manifest(),
    "model-card.md": "# 养蜂顾问\n".encode(),
    "empty.txt": b"",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    keys, other = Keys.open(folder / "keys"), Keys.open(folder / "other")
    source = folder / "weights.bin"
    source.write_bytes(bytes(range(256)) * 3)
    digest = json.loads(manifest())["digest"]
    with open_ledger(folder / "ledger.sqlite", keys, AuditSettings(head_every=4)) as ledger:
        ledger.append([event(number) for number in range(5)])
        decided = ledger.record(Event("artifact", "lead\u202e\n", now(), {"kind": "decision", "digest": digest}))
        approved = ledger.record(Event("approval", "second person", now(), {"decision": digest}))
        ledger.append([event(number) for number in range(5)])
        write_bundle(folder / "bundle", {**FILES, "weights/adapter.bin": source}, statement=STATEMENT, keys=keys, ledger=ledger, entries=[approved, decided])
        ledger.export(folder / "log.jsonl")
        (folder / "head").write_text(ledger.head().note, encoding="utf-8")
    (folder / "proof.json").write_bytes(offline.prove(Places(folder / "ledger.sqlite", folder / "ledger.heads.jsonl", folder / "keys"), decided))
    (folder / "public-key.pem").write_bytes(keys.public_pem)
    (folder / "other.pem").write_bytes(other.public_pem)
    return Made(folder, keys, other)


def test_a_bundle_verifies_and_says_what_it_proves(made: Made) -> None:
    verdict = verify(made.bundle)
    assert (verdict.intact, verdict.fault, verdict.pinned, verdict.key_id) == (True, None, False, made.keys.key_id)
    assert verdict.facts["manifests"] == "1, of which 1 are recorded in the entries above"
    assert "5 artifact by lead" in verdict.facts["entries"]
    assert "6 approval by second person" in verdict.facts["entries"]
    shown = "\n".join(verdict.lines())
    assert "the key was taken from what it signed" in shown
    assert shown.isascii()
    assert verify(made.bundle, key=made.keys.public).pinned
    assert verify(made.bundle, key_id=made.keys.key_id[:16]).pinned


def test_a_bundle_of_another_key_is_refused_when_the_key_is_pinned(made: Made) -> None:
    assert (verify(made.bundle, key=made.other.public).fault or "").startswith("public-key.pem: the bundle comes with the key")
    assert "not by" in (verify(made.bundle, key_id=made.other.key_id).fault or "")
    with pytest.raises(InputError, match="at least 16 hexadecimal digits"):
        verify(made.bundle, key_id="12")


def test_the_statement_is_an_in_toto_statement_over_every_file(made: Made) -> None:
    statement = json.loads((made.bundle / "statement.json").read_bytes())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert (statement["predicateType"], statement["predicate"]) == (STATEMENT["predicateType"], STATEMENT["predicate"])
    names = {item["name"] for item in statement["subject"]}
    assert names == {*FILES, "weights/adapter.bin", "log/head", "log/proofs.json"}
    sealed = json.loads((made.bundle / "statement.dsse.json").read_bytes())
    assert sealed["payloadType"] == "application/vnd.in-toto+json"
    assert [item["keyid"] for item in sealed["signatures"]] == [made.keys.key_id]


def names_in(bundle: Path) -> list[str]:
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())


def test_every_byte_of_every_file_of_a_bundle_matters(made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    tried = 0
    for name in names_in(folder):
        path = folder / name
        whole = path.read_bytes()
        for place in range(0, len(whole), 1 if len(whole) < 600 else 5):
            changed = bytearray(whole)
            changed[place] ^= 1 << (place % 8)
            path.write_bytes(bytes(changed))
            verdict = verify(folder)
            assert not verdict.intact, (name, place)
            tried += 1
        path.write_bytes(whole)
    assert tried > 1500
    assert verify(folder).intact


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_of_a_bundle_fails_and_names_the_file(made: Made, tmp_path: Path, data: st.DataObject) -> None:
    shutil.rmtree(tmp_path / "bundle", ignore_errors=True)
    folder = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    name, other = data.draw(st.lists(st.sampled_from(names_in(folder)), min_size=2, max_size=2, unique=True))
    path, second = folder / name, folder / other
    kind = data.draw(st.sampled_from(["flip", "cut", "longer", "delete", "rename", "add", "swap", "link"]))
    whole = path.read_bytes()
    touched = {name}
    if kind == "flip":
        assume(whole)
        place = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :])
    elif kind == "cut":
        assume(whole)
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    elif kind == "longer":
        path.write_bytes(whole + data.draw(st.binary(min_size=1, max_size=4)))
    elif kind == "delete":
        path.unlink()
        for parent in (path.parent,):
            if parent != folder and not any(parent.iterdir()):
                parent.rmdir()
    elif kind == "rename":
        path.rename(path.with_name(f"{path.name}x"))
        touched.add(f"{name}x")
    elif kind == "add":
        added = data.draw(st.sampled_from(["more.txt", "log/more", "evidence/x.json", "new/y"]))
        (folder / added).parent.mkdir(exist_ok=True)
        (folder / added).write_bytes(b"")
        touched = {added}
    elif kind == "swap":
        assume(whole != second.read_bytes())
        path.write_bytes(second.read_bytes())
        second.write_bytes(whole)
        touched.add(other)
    else:
        path.unlink()
        path.symlink_to(made.bundle / name)
    verdict = verify(folder)
    assert not verdict.intact, (kind, name)
    # Key and signature vouch for each other: a wrong key shows as a wrong signature.
    if touched & {"public-key.pem", "statement.dsse.json", "statement.json"}:
        touched |= {"public-key.pem", "statement.dsse.json", "statement.json"}
    assert any((verdict.fault or "").startswith(f"{item}:") for item in touched), (kind, verdict.fault, touched)


def test_an_empty_folder_or_a_device_is_not_passed_over(made: Made, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    (folder / "extra").mkdir()
    assert verify(folder).fault == "extra: is an empty folder, which no bundle has"
    (folder / "extra").rmdir()
    os.mkfifo(folder / "pipe")
    assert verify(folder).fault == "pipe: is a link or a device, which no bundle has"


def test_a_bundle_signed_anew_by_somebody_else_needs_the_pin(made: Made, tmp_path: Path) -> None:
    """Whoever rewrites everything signs with a key of their own: only the pin tells."""
    with open_ledger(tmp_path / "ledger.sqlite", made.other) as ledger:
        index = ledger.record(event())
        write_bundle(tmp_path / "bundle", {"decision.json": b"forged"}, statement=STATEMENT, keys=made.other, ledger=ledger, entries=[index])
    assert verify(tmp_path / "bundle").intact
    assert not verify(tmp_path / "bundle", key=made.keys.public).intact


def test_a_head_of_another_moment_does_not_fit(made: Made, tmp_path: Path) -> None:
    """Rightly signed, by the same key, of the same log: the statement says which head was meant."""
    folder = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    stored = read_known_heads(made.folder / "ledger.heads.jsonl")
    other = next(head for head in stored if head.note != (folder / "log/head").read_text(encoding="utf-8"))
    (folder / "log/head").write_text(other.note, encoding="utf-8")
    assert (verify(folder).fault or "").startswith("log/head: was changed")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/.", "a\\b", "a\nb", "", "log/x", "statement.json", "public-key.pem", "a\x00b"]
)
def test_names_that_no_file_of_a_bundle_has(made: Made, tmp_path: Path, name: str) -> None:
    with (
        open_ledger(made.folder / "ledger.sqlite", made.keys, AuditSettings(head_every=4)) as ledger,
        pytest.raises(LedgerError, match="name"),
    ):
        write_bundle(tmp_path / "bundle", {name: b""}, statement=STATEMENT, keys=made.keys, ledger=ledger, entries=[])
    assert not (tmp_path / "bundle").exists()


def test_what_a_bundle_cannot_be_made_of(made: Made, tmp_path: Path) -> None:
    with open_ledger(made.folder / "ledger.sqlite", made.keys, AuditSettings(head_every=4)) as ledger:

        def write(folder: Path = tmp_path / "bundle", **changed: object) -> None:
            given = {"files": {"a": b"x"}, "statement": STATEMENT, "keys": made.keys, "ledger": ledger, "entries": [0], **changed}
            write_bundle(folder, given.pop("files"), **given)  # type: ignore[arg-type]

        with pytest.raises(LedgerError, match="the log has no entry 4711"):
            write(entries=[0, 4711])
        with pytest.raises(LedgerError, match="predicateType"):
            write(statement={"predicate": {}})
        with pytest.raises(LedgerError, match="the rest is written here: subject"):
            write(statement={**STATEMENT, "subject": []})
        with pytest.raises(LedgerError, match="the keys given are not those of the log"):
            write(keys=made.other)
        with pytest.raises(LedgerError, match="cannot write the bundle"):
            write(files={"a": tmp_path / "missing"})
        with pytest.raises(LedgerError, match="there is something at"):
            write(folder=made.bundle)
    assert list(tmp_path.iterdir()) == []


def test_a_proof_stands_alone_and_every_byte_of_it_matters(made: Made, tmp_path: Path) -> None:
    whole = (made.folder / "proof.json").read_bytes()
    verdict = verify(made.folder / "proof.json", key=made.keys.public)
    assert (verdict.what, verdict.intact, verdict.facts["index"], verdict.facts["kind"]) == ("proof", True, 5, "artifact")
    path = tmp_path / "proof.json"
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        assert not verify(path).intact, place


def test_a_log_has_to_continue_a_head_that_somebody_kept(made: Made, tmp_path: Path) -> None:
    for kept in (made.folder / "head", made.folder / "ledger.heads.jsonl"):
        assert verify(made.folder / "log.jsonl", heads=read_known_heads(kept)).intact
    (tmp_path / "no-head").write_text("hello")
    with pytest.raises(InputError, match="neither a signed head nor a heads file"):
        read_known_heads(tmp_path / "no-head")
    with pytest.raises(InputError, match="PEM form"):
        read_key(tmp_path / "no-head")
    with pytest.raises(InputError, match="nothing here to verify"):
        verify(tmp_path / "missing")


@pytest.mark.parametrize("content", [b"", b"\n", b"{}", b"[" * 100_000, b'{"format":"metier-proof/1"', b'{"format":"metier-log/1","size":1}\n', bytes(2000)])
def test_garbage_is_a_fault_and_not_a_crash(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "garbage").write_bytes(content)
    assert not verify(tmp_path / "garbage").intact
    folder = tmp_path / "bundle"
    (folder / "log").mkdir(parents=True)
    for name in ("statement.json", "statement.dsse.json", "public-key.pem", "log/head", "log/proofs.json"):
        (folder / name).write_bytes(content)
    assert not verify(folder).intact


def test_exit_codes_and_json(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(made.bundle), "--public-key", str(made.folder / "public-key.pem"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pinned"] is True
    assert main([str(made.bundle), "--public-key", str(made.folder / "other.pem")]) == 1
    assert "DOES NOT VERIFY" in capsys.readouterr().out
    assert main([str(tmp_path / "missing")]) == 2
    assert "nothing here to verify" in capsys.readouterr().err


ALONE = ["__init__.py", "errors.py", "digest.py", "events.py"]
BLOCKED = """
import runpy, sys
allowed = set(sys.stdlib_module_names) | {"cryptography", "_cffi_backend", "cffi", "metier"}
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in allowed:
            raise ImportError(f"{name} is not on this machine")
sys.meta_path.insert(0, Block())
sys.argv = ["verify", *sys.argv[1:]]
runpy.run_module("metier.audit.verify", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def stranger(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Verify on a machine that has the audit folder, four small files, `cryptography`, and nothing else."""
    source, lone = Path(metier.__file__).parent, tmp_path / "lone" / "metier"
    shutil.copytree(source / "audit", lone / "audit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ALONE:
        shutil.copy(source / name, lone / name)

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"PYTHONPATH": str(lone.parent)}
        return subprocess.run([sys.executable, "-c", BLOCKED, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)

    return call


def test_a_machine_with_nothing_else_verifies_bundle_log_and_proof(
    made: Made, stranger: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    for name in ("bundle", "log.jsonl", "proof.json"):
        done = stranger(made.folder / name, "--public-key", made.folder / "public-key.pem")
        assert (done.returncode, done.stderr) == (0, ""), name
        assert "verifies" in done.stdout
    folder = Path(shutil.copytree(made.bundle, tmp_path / "bundle"))
    (folder / "decision.json").write_bytes(b'{"verdict":"Pass"}')
    done = stranger(folder)
    assert done.returncode == 1
    assert "decision.json: was changed" in done.stdout


def test_a_bundle_survives_being_sent(made: Made, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as archive:
        for name in names_in(made.bundle):
            archive.write(made.bundle / name, name)
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        archive.extractall(tmp_path / "bundle")
    found: Verdict = verify(tmp_path / "bundle", key=made.keys.public)
    assert found.intact
