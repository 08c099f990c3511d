"""Collecting evidence: every check of the project's controls is made once, and each control gets a file that says what was found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from metier.artifacts import Artifact
from metier.compliance.catalogue import Rule, rules
from metier.compliance.checks import APPROVAL, ATTESTATION, CHECKS, Case, Subject
from metier.compliance.measurement import LedgerFacts, Measurement, from_facts, sound
from metier.compliance.settings import ComplianceSettings
from metier.errors import InputError, StoreError
from metier.packs.spec import Pack
from metier.people import checked_name
from metier.store import Store, Workspace, remove_folder, write_atomically

__all__ = ["collect", "measurements"]

_TASK = "evidence"


def collect(subject: Subject, pack: Pack, settings: ComplianceSettings, ledger: LedgerFacts | None, author: str, *, workspace: Workspace) -> Artifact:
    """Measure everything that the project's controls ask for and return the evidence artefact.

    It holds `controls/<id>.json`: measured value, threshold, interval, n, digests of what was measured, and how. It holds no text of
    any record. A check that this version cannot make is written down as such. `author` answers for the expert and cannot approve it.
    Raises ConfigError for settings that name what is not there, InputError for an author without a name.
    """
    author = checked_name(author, key="author")
    wanted = rules(pack, settings)
    case = Case(subject, pack, settings, ledger, workspace.store, workspace.progress)
    needed = sorted({rule.check for rule in wanted if rule.set_aside is None and rule.check in CHECKS})
    workspace.progress.start(_TASK, len(needed), "checks")
    found: dict[str, Measurement] = {}
    for name in needed:
        found[name] = sound(_measured(name, case))
        workspace.progress.advance(_TASK, note=name)
    workspace.progress.finish(_TASK)

    folder = workspace.folder / "evidence"
    remove_folder(folder)
    (folder / "controls").mkdir(parents=True)
    for rule in wanted:
        text = json.dumps(_document(rule, found.get(rule.check)), ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False)
        write_atomically(folder / "controls" / f"{rule.id}.json", text.encode())
    facts = {
        "author": author,
        "subject": subject.as_facts(),
        "pack": {"name": pack.facts.name, "version": pack.facts.version, "digest": pack.digest},
        "controls": [rule.id for rule in wanted],
    }
    return workspace.commit("evidence", folder, parents=[item.digest for item in subject.artifacts], facts=facts)


def _measured(name: str, case: Case) -> Measurement:
    try:
        return CHECKS[name](case)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        # Evidence of a form that the check does not know is no evidence: it fails, and says so.
        fault = f"what was to be measured is not whole ({type(error).__name__}: {error})"
        return Measurement(name, None, 0, "", "higher", "the check could not be made", faults=(fault,))
    except (StoreError, InputError) as error:
        return Measurement(name, None, 0, "", "higher", "the check could not be made", faults=(str(error).splitlines()[0],))


def _document(rule: Rule, found: Measurement | None) -> dict[str, Any]:
    if found is not None:
        return {"control": rule.id, "clause": rule.clause, "threshold": rule.threshold, **found.as_facts()}
    if rule.set_aside is not None:
        why = rule.set_aside
    elif rule.check == APPROVAL:
        why = "decided from the approvals"
    elif rule.check == ATTESTATION:
        why = "decided by a person"
    else:
        why = "not implemented in this version"
    return {"control": rule.id, "clause": rule.clause, "threshold": rule.threshold, "check": rule.check, "measured": None, "why": why}


def measurements(evidence: Artifact, store: Store, wanted: Sequence[Rule]) -> dict[str, Measurement]:
    """Return the findings of an evidence artefact by the id of their control.

    A control without a finding is absent. Raises StoreError if a file of the evidence was changed.
    """
    if damaged := store.damaged(evidence):
        raise StoreError(f"the evidence {evidence.digest[:12]} was changed after it was collected ({damaged[0]})\n    -> remove its folder and run again")
    found = {}
    for rule in wanted:
        if f"controls/{rule.id}.json" in evidence.files:
            document = json.loads(evidence.file(f"controls/{rule.id}.json").read_bytes())
            if "how" in document:
                found[rule.id] = from_facts(document)
    return found
