"""A release is made only of what passed and was approved, and opened only if not a byte of it was changed."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import decided
from metier import flow, registry
from metier.artifacts import Artifact
from metier.compliance import LedgerFacts
from metier.digest import canonical_json, digest_file
from metier.errors import GateRefused, InputError, StoreError
from metier.events import Event
from metier.project import Project, load_project
from metier.registry.releases import _CONTEXT, STATEMENT

KEY = decided.Key()


@pytest.fixture(scope="session")
def approved(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project with an approval and a release; tests must not change it."""
    project = decided.copy(finished, tmp_path_factory.mktemp("approved") / "hives")
    flow.approve(project, by=decided.OTHER, ledger=decided.intact)
    made = flow.release(project, KEY, name="hives-v1", ledger=decided.intact)
    return project.root, made.digest


@pytest.fixture
def folder(approved: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the release's folder."""
    root, digest = approved
    target = tmp_path / "released"
    shutil.copytree(root / ".metier" / "artifacts" / "release" / digest, target)
    return target


def test_nothing_is_released_without_an_approval_by_somebody_else(project: Project) -> None:
    with pytest.raises(GateRefused) as raised:
        flow.release(project, KEY, ledger=decided.intact)
    assert raised.value.exit_code == 1
    assert "SX-01: awaiting attestation" in str(raised.value)
    assert f"somebody else than {decided.AUTHOR}" in str(raised.value)
    assert not (project.store.root / "artifacts" / "release").exists()


def test_every_failing_control_is_named(project: Project) -> None:
    file = project.root / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("compliance: {", "compliance: {licences: [MIT], "), encoding="utf-8")
    changed = load_project(project.root)
    assert flow.run(changed, ledger=decided.intact).decision.facts["verdict"] == "fail"
    flow.approve(changed, by=decided.OTHER, controls=["DG-06", "DG-06-base"], ledger=decided.intact)
    with pytest.raises(GateRefused) as raised:
        flow.release(changed, KEY, ledger=decided.intact)
    for said in ("DG-06: fail: not among the allowed licences", "DG-06-base: fail", "the verdict is fail", "nobody can approve it away"):
        assert said in str(raised.value)


def test_nothing_is_released_while_the_log_does_not_verify(project: Project) -> None:
    flow.approve(project, by=decided.OTHER, ledger=decided.intact)
    with pytest.raises(GateRefused, match="the log of events does not verify: entry 4 was changed"):
        flow.release(project, KEY, ledger=lambda: LedgerFacts(9, "00", intact=False, fault="entry 4 was changed"))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "a b", "a\nb", "\u0430dvisor", "-x", "x" * 65, "%2e%2e", "a\x00b"])
def test_a_name_that_cannot_be_served_is_refused(project: Project, name: str) -> None:
    flow.approve(project, by=decided.OTHER, ledger=decided.intact)
    decision, adapter = flow.run(project, ledger=decided.intact).decision, project.store.newest("adapter")
    with pytest.raises(InputError, match="cannot be the name of a release"):
        registry.release(name, decision, adapter, flow.packs.load("example"), KEY, store=project.store)


def test_a_release_opens_and_says_what_it_is(approved: tuple[Path, str], folder: Path) -> None:
    project = load_project(approved[0])
    opened = registry.open_release(folder, KEY.public_pem)
    assert opened.name == "hives-v1"
    assert opened.digest == approved[1]
    assert opened.adapter_digest == project.store.newest("adapter").digest
    assert opened.statement["approved_by"] == [decided.OTHER]
    assert opened.statement["author"] == decided.AUTHOR
    assert set(opened.statement["files"]) == {"adapter_model.safetensors", "adapter_config.json", "chat_template.jinja"}
    assert registry.open_release(folder, KEY.public_pem, base=opened.base_digest) == opened


def test_a_release_is_put_on_record_before_it_exists_and_made_once(project: Project) -> None:
    flow.approve(project, by=decided.OTHER, ledger=decided.intact)
    folder = project.store.root / "artifacts" / "release"

    def full(event: Event) -> int:
        raise StoreError("the log's disk is full")

    with pytest.raises(StoreError, match="the log's disk is full"):
        flow.release(project, KEY, record=full, ledger=decided.intact)
    assert not folder.exists()

    events: list[Event] = []

    def keep(event: Event) -> int:
        assert not folder.exists()
        events.append(event)
        return 0

    made = flow.release(project, KEY, record=keep, ledger=decided.intact)
    assert flow.release(project, KEY, record=keep, ledger=decided.intact) == made
    assert [(event.kind, event.actor, event.facts["release"]) for event in events] == [("release", decided.AUTHOR, made.digest)]
    (row,) = registry.releases(project.store, KEY.public_pem)
    assert row[0].digest == made.digest
    assert registry.newest([row])["hives"] == row[1]


def test_every_single_changed_byte_is_found(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        places = range(len(data)) if len(data) < 3000 else range(0, len(data), max(1, len(data) // 200))
        for place in places:
            path.write_bytes(data[:place] + bytes([data[place] ^ 0x01]) + data[place + 1 :])
            with pytest.raises(GateRefused, match="is refused"):
                registry.open_release(folder, KEY.public_pem)
        path.write_bytes(data)
    registry.open_release(folder, KEY.public_pem)


def _link(folder: Path) -> None:
    outside = folder.parent / "outside"
    shutil.copyfile(folder / "adapter_config.json", outside)
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").symlink_to(outside)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (lambda folder: (folder / "extra.txt").write_text("x"), "'extra.txt' does not belong"),
        (lambda folder: (folder / "adapter_model.bin").write_bytes(b"x"), "'adapter_model.bin' does not belong"),
        (lambda folder: (folder / "sub").mkdir(), "'sub' is a link, a folder"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "'chat_template.jinja' is missing"),
        (lambda folder: (folder / STATEMENT).unlink(), "'release.json' is missing"),
        (lambda folder: (folder / "adapter_config.json").open("a").write(" "), "'adapter_config.json' was changed"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{{ evil }}"), "'chat_template.jinja' was changed"),
        (_link, "'adapter_config.json' is a link"),
        (lambda folder: (folder / STATEMENT).write_bytes((folder / STATEMENT).read_bytes() + b"\n"), "not in the form"),
        (lambda folder: (folder / STATEMENT).write_text("[" * 5000), "not in the form"),
        (lambda folder: (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes() + b"\n"), "'manifest.json' was changed"),
    ],
    ids=["added", "added pickle", "added folder", "removed", "no statement", "changed", "template", "link out", "blank", "deep", "manifest"],
)
def test_a_folder_that_was_tampered_with_is_refused(folder: Path, tamper: Callable[[Path], object], said: str) -> None:
    tamper(folder)
    with pytest.raises(GateRefused) as raised:
        registry.open_release(folder, KEY.public_pem)
    assert said in str(raised.value)


def test_a_release_that_is_itself_a_link_is_refused(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    with pytest.raises(GateRefused, match="not a folder"):
        registry.open_release(folder.parent / "link", KEY.public_pem)


def test_a_release_signed_by_another_key_is_refused(folder: Path) -> None:
    with pytest.raises(GateRefused, match="signature is not that of this key"):
        registry.open_release(folder, decided.Key().public_pem)
    with pytest.raises(InputError, match="no PEM"):
        registry.open_release(folder, b"nonsense")


def resign(folder: Path, change: Callable[[dict], None]) -> None:
    """Sign a changed statement with the right key, as somebody who holds it could: what lies inside is checked all the same."""
    document = json.loads((folder / STATEMENT).read_bytes())
    statement = document["statement"]
    for name in statement["files"]:
        if (folder / name).is_file():
            statement["files"][name] = {"sha256": digest_file(folder / name), "bytes": (folder / name).stat().st_size}
    change(statement)
    document["signature"]["value"] = base64.b64encode(KEY.sign(_CONTEXT + canonical_json(statement))).decode()
    (folder / STATEMENT).write_bytes(canonical_json(document))
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_with_nan_or_infinities_are_refused_even_if_signed(folder: Path, value: float) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    name = sorted(tensors)[0]
    tensors[name].flat[3] = value
    save_file(tensors, folder / "adapter_model.safetensors")
    resign(folder, lambda statement: None)
    with pytest.raises(GateRefused, match="1 values that are not finite"):
        registry.open_release(folder, KEY.public_pem)


def test_a_wrong_rank_is_refused_even_if_signed(folder: Path) -> None:
    resign(folder, lambda statement: statement.update(rank=64))
    with pytest.raises(GateRefused, match="says rank 4, the run says 64"):
        registry.open_release(folder, KEY.public_pem)


def test_a_wrong_shape_is_refused_even_if_signed(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    name = sorted(tensors)[0]
    save_file({**tensors, name: np.concatenate([tensors[name]] * 2)}, folder / "adapter_model.safetensors")
    resign(folder, lambda statement: None)
    with pytest.raises(GateRefused, match="has rank 8 and 4"):
        registry.open_release(folder, KEY.public_pem)


def test_the_wrong_base_model_is_refused(folder: Path) -> None:
    with pytest.raises(GateRefused, match="it was trained on the base model"):
        registry.open_release(folder, KEY.public_pem, base="0" * 64)


def test_files_that_are_no_adapter_s_are_refused_even_if_signed(folder: Path) -> None:
    (folder / "modeling.py").write_text("print()")
    resign(folder, lambda statement: statement["files"].update({"modeling.py": {"sha256": digest_file(folder / "modeling.py"), "bytes": 7}}))
    with pytest.raises(GateRefused, match=r"'modeling.py' is no file of an adapter"):
        registry.open_release(folder, KEY.public_pem)


def test_a_path_that_leads_out_is_refused_even_if_signed(folder: Path) -> None:
    resign(folder, lambda statement: statement["files"].update({"../outside": {"sha256": "0" * 64, "bytes": 1}}))
    with pytest.raises(GateRefused, match=r"'\.\./outside' is missing"):
        registry.open_release(folder, KEY.public_pem)


def test_a_tampered_release_is_listed_as_refused_and_no_longer_the_newest(approved: tuple[Path, str], tmp_path: Path) -> None:
    project = decided.copy(approved[0], tmp_path / "spoilt")
    made: Artifact = project.store.open("release", approved[1])
    made.file("adapter_config.json").write_text("{}")
    rows = registry.releases(project.store, KEY.public_pem)
    assert rows[0][1] is None
    assert "'adapter_config.json' was changed" in rows[0][2]
    assert registry.newest(rows) == {}


def test_an_adapter_that_was_changed_after_the_decision_is_not_released(project: Project) -> None:
    flow.approve(project, by=decided.OTHER, ledger=decided.intact)
    path = project.store.newest("adapter").file("adapter_model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(GateRefused, match="was changed after it was made"):
        flow.release(project, KEY, ledger=decided.intact)
