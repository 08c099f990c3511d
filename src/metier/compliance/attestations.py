"""Statements that anybody can verify: how the adapter was made and what was decided on it, as signed in-toto attestations.

in-toto Statement v1 in a DSSE envelope (https://github.com/secure-systems-lab/dsse, protocol v1: the signature is over the
pre-authentication encoding); the provenance has SLSA's predicate v1 (https://slsa.dev/spec/v1.0/provenance).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Protocol

from metier import __version__
from metier.compliance.dossier import Dossier
from metier.digest import canonical_json

__all__ = ["PAYLOAD_TYPE", "Signer", "attestations", "encoded", "statement"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PROVENANCE = "https://slsa.dev/provenance/v1"
_DECISION = "urn:metier:decision:1"


class Signer(Protocol):
    """The project's key."""

    @property
    def key_id(self) -> str:
        """Name of the key."""

    def sign(self, data: bytes, /) -> bytes:
        """Return the signature."""


def encoded(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of an in-toto payload: what is signed."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def attestations(dossier: Dossier, signer: Signer) -> Iterator[dict[str, Any]]:
    """Yield the DSSE envelopes: provenance of the adapter, then the decision with every control."""
    for kind, predicate in ((_PROVENANCE, _made(dossier)), (_DECISION, _decided(dossier))):
        payload = canonical_json({"_type": _STATEMENT, "subject": _subject(dossier), "predicateType": kind, "predicate": predicate})
        signature = {"keyid": signer.key_id, "sig": base64.b64encode(signer.sign(encoded(payload))).decode()}
        yield {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signature]}


def _subject(dossier: Dossier) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": facts["sha256"]}} for name, facts in sorted(dossier.subject.adapter.files.items())]


def _made(dossier: Dossier) -> dict[str, Any]:
    subject = dossier.subject
    dataset, run = subject.dataset, subject.run
    sources = [{"uri": entry["uri"], "digest": {"sha256": entry["sha256"]}} for entry in subject.sources]
    teacher = run.facts.get("teacher")
    named = [("dataset", dataset.digest), ("base", subject.base.digest), *([("teacher", teacher["digest"])] if teacher else [])]
    named += [(f"dataset of {item['project']}", item["dataset"]) for item in subject.companions]
    made = [{"name": name, "digest": {"sha256": digest}} for name, digest in named]
    return {
        "buildDefinition": {
            "buildType": "urn:metier:training:1",
            "externalParameters": {"training": run.facts["settings"]["effective"], "steps": dataset.facts["steps"]},
            "internalParameters": {"environment": run.facts["environment"]},
            "resolvedDependencies": [*made, *sources],
        },
        "runDetails": {
            "builder": {"id": "urn:metier", "version": {"metier": __version__}},
            "metadata": {"invocationId": run.digest},
            "byproducts": [{"name": "evaluation", "digest": {"sha256": subject.evaluation.digest}}],
        },
    }


def statement(dossier: Dossier) -> dict[str, Any]:
    """Return predicateType and predicate of what is said of a bundle as a whole: the decision with every control."""
    return {"predicateType": _DECISION, "predicate": _decided(dossier)}


def _decided(dossier: Dossier) -> dict[str, Any]:
    facts = dossier.decision.facts
    return {
        "decision": dossier.decision.digest,
        "evidence": dossier.evidence.digest,
        "rules": facts["rules"],
        "verdict": facts["verdict"],
        "author": facts["author"],
        "approved_by": facts["approved_by"],
        "controls": facts["controls"],
        "inputs": dossier.subject.as_facts(),
    }
