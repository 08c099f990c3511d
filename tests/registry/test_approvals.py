from __future__ import annotations

import pytest

import decided
from metier import flow, registry
from metier.errors import GateRefused, InputError
from metier.events import Event
from metier.people import checked_name, same_person
from metier.project import Project, load_project


@pytest.mark.parametrize(
    "name",
    [
        "Ada Author",
        "ada author",
        "ADA  AUTHOR ",
        "Ada\u00a0Author",
        "\uff21\uff44\uff41 \uff21\uff55\uff54\uff48\uff4f\uff52",
        "\u0410da Author",
        "Ad\u0430 Auth\u043er",
        "\u00c1d\u00e0 Author",
        "Ada A\u0075\u0308thor",
        "4da Auth0r",
        "Author, Ada",
        "Ada-Author",
        "AdaAuthor",
        "\U0001d400da Author",
        "\u24b6da Author",
    ],
)
def test_the_author_cannot_approve_under_any_writing_of_the_name(project: Project, name: str) -> None:
    assert same_person(name, decided.AUTHOR)
    with pytest.raises(GateRefused, match="cannot approve: the name is that of the author"):
        flow.approve(project, by=name, ledger=decided.intact)
    assert not (project.store.root / "artifacts" / "approval").exists()


@pytest.mark.parametrize("name", ["Ada Autor", "Zhang Wei", "Bob Author", "Ada", "\u5f20\u4f1f"])
def test_another_person_is_another_person(name: str) -> None:
    assert not same_person(name, decided.AUTHOR)


@pytest.mark.parametrize(("one", "other"), [("\u5f20\u4f1f", "\u5f35\u5049"), ("Paul", "PauI"), ("Modern", "Modem"), ("\u0130lker", "ilker")])
def test_names_that_look_alike_are_one(one: str, other: str) -> None:
    assert same_person(one, other)


@pytest.mark.parametrize(
    "name", ["", "  ", "\u200b", "---", "Zhang\nWei", "Zhang\r\nWei", "Zhang\u2028Wei", "Zhang \u202eWei", "Zh\u200bang Wei", "\x1b[31mZhang", "x" * 201]
)
def test_a_name_that_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        checked_name(name, key="--by")


def test_an_approval_by_somebody_else_is_stored_recorded_and_decides(project: Project) -> None:
    events: list[Event] = []
    approval, decision = flow.approve(project, by=" Zhang Wei ", note="read 40 records", record=lambda event: events.append(event) or 0, ledger=decided.intact)
    assert approval.facts["by"] == "Zhang Wei"
    assert approval.facts["evidence"] == project.store.newest("evidence").digest
    assert decision.facts["verdict"] == "pass"
    assert decision.facts["approved_by"] == ["Zhang Wei"]
    assert approval.digest in decision.parents
    assert [(event.kind, event.actor, event.facts["approval"]) for event in events] == [("approval", "Zhang Wei", approval.digest)]
    again, _ = flow.approve(project, by="Zhang Wei", note="read 40 records", ledger=decided.intact)
    assert again.digest == approval.digest, "the same approval twice is one"


def test_a_run_after_the_approval_finds_the_same_decision(project: Project) -> None:
    _, decision = flow.approve(project, by="Zhang Wei", ledger=decided.intact)
    assert flow.run(project, ledger=decided.intact).decision.digest == decision.digest


def test_new_evidence_needs_a_new_approval(project: Project) -> None:
    flow.approve(project, by="Zhang Wei", ledger=decided.intact)
    file = project.root / "metier.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace(decided.AUTHOR, "Bela Builder"), encoding="utf-8")
    changed = load_project(project.root)
    decision = flow.run(changed, ledger=decided.intact).decision
    assert decision.facts["verdict"] == "awaiting"
    assert decision.facts["approved_by"] == []
    with pytest.raises(GateRefused, match="SX-01"):
        flow.release(changed, decided.Key(), ledger=decided.intact)


def test_a_control_that_is_not_there_is_named_with_the_nearest(project: Project) -> None:
    with pytest.raises(InputError, match="did you mean 'DG-01'"):
        flow.approve(project, by="Zhang Wei", controls=["DG-1"], ledger=decided.intact)


def test_an_approval_that_the_log_cannot_keep_does_not_count_silently(project: Project) -> None:
    def full(event: Event) -> int:
        raise InputError("the log is full")

    with pytest.raises(InputError, match="the log is full"):
        flow.approve(project, by="Zhang Wei", record=full, ledger=decided.intact)
    assert registry.approvals_of(project.store.newest("evidence"), project.store) == ()
    assert flow.run(project, ledger=decided.intact).decision.facts["verdict"] == "awaiting"


def test_an_approval_that_was_changed_on_disk_is_refused(project: Project) -> None:
    approval, _ = flow.approve(project, by="Zhang Wei", ledger=decided.intact)
    approval.file("approval.json").write_text("{}")
    (project.store.root / "stages").rename(project.store.root / "stages-gone")
    with pytest.raises(Exception, match=r"changed after|no decision"):
        flow.release(project, decided.Key(), ledger=decided.intact)


def test_there_is_nothing_to_approve_before_a_decision(project: Project) -> None:
    (project.root / "data" / "hives.jsonl").open("a", encoding="utf-8").write('{"note": "new", "frames": 1, "season": "summer", "keeper": "x"}\n')
    with pytest.raises(GateRefused, match="no decision on the present data"):
        flow.approve(project, by="Zhang Wei", ledger=decided.intact)
