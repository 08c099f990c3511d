"""The files of a bundle: everything that a stranger needs to see what was decided, from what and on whose word."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from metier.artifacts import MANIFEST, Artifact
from metier.compliance.attestations import Signer, attestations
from metier.compliance.bom import bill_of_materials
from metier.compliance.card import model_card
from metier.compliance.dossier import Dossier
from metier.digest import canonical_json, digest_of

__all__ = ["payload"]


def payload(dossier: Dossier, signer: Signer, *, with_items: bool = False) -> dict[str, bytes]:
    """Return the files of a bundle by their name in it.

    They hold no text of any record and no answer, only hashes and numbers, unless `with_items` asks for them. The same dossier and
    key give the same bytes.
    """
    subject = dossier.subject
    files = {
        "decision/decision.json": dossier.decision.file("decision.json").read_bytes(),
        "decision/decision.md": dossier.decision.file("decision.md").read_bytes(),
        "evaluation/summary.json": _pretty(_summary(subject.evaluation)),
        "evaluation/items.jsonl": b"".join(_items(subject.evaluation)),
        "dataset/card.md": subject.dataset.file("card.md").read_bytes(),
        "model-card.md": model_card(dossier).encode(),
        "bom.cdx.json": _pretty(bill_of_materials(dossier)),
        "attestations.intoto.jsonl": b"".join(canonical_json(line) + b"\n" for line in attestations(dossier, signer)),
    }
    files |= {f"evidence/{name}": dossier.evidence.file(name).read_bytes() for name in dossier.evidence.files}
    files |= {f"approvals/{item.digest}.json": item.file("approval.json").read_bytes() for item in dossier.approvals}
    if dossier.release is not None:
        files["release/release.json"] = dossier.release.file("release.json").read_bytes()
    files |= {f"manifests/{name}.json": data for name, data in _manifests(dossier, with_items=with_items)}
    if with_items:
        names = [name for name in subject.evaluation.files if name.startswith("samples/")]
        files |= {f"evaluation/{name}": subject.evaluation.file(name).read_bytes() for name in names}
    return dict(sorted(files.items()))


def _manifests(dossier: Dossier, *, with_items: bool) -> Iterator[tuple[str, bytes]]:
    """The manifests of all artefacts; that of an evaluation with an example question holds its answers and needs asking for."""
    for item in dossier.artifacts:
        if item.kind != "evaluation" or with_items or item.facts["question"] is None:
            name = f"approval-{item.digest[:12]}" if item.kind == "approval" else item.kind
            yield name, (item.path / MANIFEST).read_bytes()


def _pretty(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"


def _summary(evaluation: Artifact) -> dict[str, Any]:
    """The evaluation's figures. Its example question has answers in it and is named by its digest only."""
    facts = {**evaluation.facts, "question": digest_of(evaluation.facts["question"])}
    return {"digest": evaluation.digest, "parents": list(evaluation.parents), "files": dict(evaluation.files), **facts}


def _items(evaluation: Artifact) -> Iterator[bytes]:
    for name in sorted(evaluation.files):
        if not name.startswith("samples/"):
            continue
        with evaluation.file(name).open(encoding="utf-8") as stream:
            for line in stream:
                yield canonical_json({"file": name, **_hashed(json.loads(line))}) + b"\n"


def _hashed(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("record_id", "language", "doc_hash", "prompt_hash", "target_hash")}
    for side in ("base", "tuned"):
        answer = row[side]
        kept[side] = {"answer_hash": digest_of([answer["text"], answer["likelihoods"]]), "valid": answer["valid"], "scores": answer["scores"]}
    return kept
