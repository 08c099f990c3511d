"""Controls decided from evidence: what was measured, what the gate says of it, and the documents that go with a release."""

from typing import TYPE_CHECKING

import lazy_loader

from metier.compliance.settings import ComplianceSettings

if TYPE_CHECKING:
    from metier.compliance.attestations import statement
    from metier.compliance.bundle import payload
    from metier.compliance.catalogue import Rule, rules
    from metier.compliance.checks import Subject
    from metier.compliance.decision import decide
    from metier.compliance.dossier import Dossier
    from metier.compliance.evidence import collect
    from metier.compliance.measurement import LedgerFacts
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "attestations": ["statement"],
            "bundle": ["payload"],
            "catalogue": ["Rule", "rules"],
            "checks": ["Subject"],
            "decision": ["decide"],
            "dossier": ["Dossier"],
            "evidence": ["collect"],
            "measurement": ["LedgerFacts"],
        },
    )

__all__ = ["ComplianceSettings", "Dossier", "LedgerFacts", "Rule", "Subject", "collect", "decide", "payload", "rules", "statement"]
