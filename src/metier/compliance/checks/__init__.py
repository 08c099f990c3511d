"""The checks that this version can make, by the name that controls give; a control with another check is never passed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from metier.compliance.checks.case import Case, Subject
from metier.compliance.checks.expert import held_out_evaluation, ledger_intact, retention, safe_formats
from metier.compliance.checks.provenance import base_licence, licences, lineage, source_basis
from metier.compliance.checks.records import identifier_scan, split_leak
from metier.compliance.measurement import Measurement

__all__ = ["APPROVAL", "ATTESTATION", "CHECKS", "Case", "Subject"]

APPROVAL = "separate_approval"
"""Decided from the approvals that the gate is given, not from evidence."""
ATTESTATION = "attestation"
"""Decided by a person alone."""

CHECKS: Mapping[str, Callable[[Case], Measurement]] = {
    "base_licence": base_licence,
    "held_out_evaluation": held_out_evaluation,
    "identifier_scan": identifier_scan,
    "ledger_intact": ledger_intact,
    "licences": licences,
    "lineage": lineage,
    "retention": retention,
    "safe_formats": safe_formats,
    "source_basis": source_basis,
    "split_leak": split_leak,
}
