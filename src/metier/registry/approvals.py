"""Approvals: one person says yes to one evidence, by name, and may attest controls that a machine cannot decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from metier.artifacts import Artifact, planned_manifest
from metier.digest import canonical_json
from metier.errors import Fault, GateRefused, InputError, nearest
from metier.events import Event, Record, now
from metier.people import checked_name, same_person
from metier.store import Store, remove_folder, write_atomically

__all__ = ["approvals_of", "approve"]

_LONGEST_NOTE = 4000


def approvals_of(evidence: Artifact, store: Store) -> tuple[Artifact, ...]:
    """Return the approvals that were given for this very evidence, in the order of their digests."""
    folder = store.root / "artifacts" / "approval"
    found = [store.open("approval", path.parent.name) for path in sorted(folder.glob("*/manifest.json"))]
    return tuple(item for item in found if item.facts["evidence"] == evidence.digest)


def approve(
    evidence: Artifact,
    decision: Artifact,
    store: Store,
    *,
    by: str,
    note: str = "",
    controls: Sequence[str] = (),
    record: Record | None = None,
) -> Artifact:
    """Store a person's approval of an evidence and return it; the same approval given twice is one.

    `controls` are those that the person attests or takes upon themselves. `record` keeps the event before the approval exists: what
    cannot be put on record is not approved. Raises GateRefused if `by` could be taken for the author
    under whatever writing of the name, InputError for a name that cannot be read or for controls that the decision does not have.
    """
    by = checked_name(by, key="--by")
    author = evidence.facts["author"]
    if same_person(by, author):
        raise GateRefused(f"{by!r} cannot approve: the name is that of the author ({author!r}), or looks like it\n    -> somebody else has to approve")
    known = decision.facts["controls"]
    faults = [Fault(f"there is no control {name!r}", key="--control", remedy=nearest(name, list(known))) for name in controls if name not in known]
    if len(note) > _LONGEST_NOTE:
        faults.append(Fault(f"the note has {len(note)} characters", key="--note", remedy=f"at most {_LONGEST_NOTE}"))
    if decision.facts["evidence"] != evidence.digest:
        faults.append(Fault("the decision is that of another evidence", remedy="run metier comply and look again"))
    if faults:
        raise InputError(faults)
    same = {"by": by, "evidence": evidence.digest, "controls": sorted(set(controls)), "note": note}
    for item in approvals_of(evidence, store):
        if {key: item.facts[key] for key in same} == same:
            return item
    facts: dict[str, Any] = {**same, "author": author, "subject": evidence.facts["subject"], "time": now()}
    text, parents = canonical_json(facts), [evidence.digest, decision.digest]
    if record is not None:
        digest = planned_manifest("approval", parents, facts, {"approval.json": text})["digest"]
        said = {"approval": digest, "evidence": evidence.digest, "decision": decision.digest, "controls": facts["controls"]}
        record(Event("approval", by, facts["time"], said, {"note": note}))
    folder = store.workspace("approval").folder / "approval"
    remove_folder(folder)
    folder.mkdir(parents=True)
    write_atomically(folder / "approval.json", text)
    return store.commit("approval", folder, parents=parents, facts=facts)
