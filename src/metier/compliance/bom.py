"""The bill of materials of an expert: CycloneDX 1.6 (ECMA-424), with the model card and the data that it knows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from metier import __version__
from metier.compliance.dossier import Dossier
from metier.digest import digest_of
from metier.models.adapterfile import weights_of

__all__ = ["bill_of_materials"]

_SHORT = 12


def bill_of_materials(dossier: Dossier) -> dict[str, Any]:
    """Return the bill as JSON values: the adapter with its model card, base model, dataset, sources, and the packages of the run.

    It has no time in it: the same expert has the same bill. Licences are given by name, as the project states them.
    """
    packages = list(_packages(dossier))
    sources = list(_sources(dossier))
    companions = list(_companions(dossier))
    parts = [_base(dossier), _dataset(dossier), *sources, *companions, *packages]
    needs = ["base", "dataset", *(item["bom-ref"] for item in companions), *(item["bom-ref"] for item in packages)]
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"urn:metier:bom:{digest_of([dossier.subject.digest, dossier.decision.digest])}")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "metier", "version": __version__}]},
            "component": _adapter(dossier),
        },
        "components": parts,
        "dependencies": [
            {"ref": "adapter", "dependsOn": needs},
            {"ref": "dataset", "dependsOn": [item["bom-ref"] for item in sources]},
        ],
    }


def _hash(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]


def _licence(name: str) -> list[dict[str, Any]]:
    return [{"license": {"name": name or "unknown"}}]


def _properties(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": f"metier:{name}", "value": str(value)} for name, value in values.items()]


def _adapter(dossier: Dossier) -> dict[str, Any]:
    adapter, run = dossier.subject.adapter, dossier.subject.run
    facts = adapter.facts
    return {
        "type": "machine-learning-model",
        "bom-ref": "adapter",
        "name": dossier.project,
        "version": adapter.digest[:_SHORT],
        "description": f"{_kind(facts)} of {facts['base']['name']} for the domain of the pack {dossier.pack.facts.name}",
        "hashes": _hash(adapter.files[weights_of(adapter.path)]["sha256"]),
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": facts.get("task", "text generation"),
                "datasets": [{"ref": "dataset"}, *({"ref": f"companion-{number}"} for number in range(len(dossier.subject.companions)))],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": list(_metrics(dossier))},
            "considerations": {
                "technicalLimitations": ["Measured on held-out items of the project's own data only; see the model card."],
                "useCases": [f"{name}: {title}" for name, title in dossier.pack.facts.title.items()],
            },
        },
        "properties": _properties(
            {
                "adapter": adapter.digest,
                "run": run.digest,
                "evaluation": dossier.subject.evaluation.digest,
                "evidence": dossier.evidence.digest,
                "decision": dossier.decision.digest,
                "verdict": dossier.decision.facts["verdict"],
                "method": facts["method"],
                "rank": "none" if facts["rank"] is None else facts["rank"],
                "trainable_parameters": facts["trainable_parameters"],
            }
        ),
    }


def _kind(facts: Mapping[str, Any]) -> str:
    return "Fine-tuned weights" if facts["rank"] is None else "Low-rank adapter"


def _metrics(dossier: Dossier) -> Iterator[dict[str, Any]]:
    for task, rows in dossier.subject.evaluation.facts["tasks"].items():
        for metric, row in rows.items():
            for side in ("tuned", "base"):
                value = row[side]
                if value["value"] is None:
                    continue
                found: dict[str, Any] = {"type": metric, "value": f"{value['value']:.6g}", "slice": f"{task}, {side}, n {row['n']}"}
                if value["low"] is not None and value["high"] is not None:
                    found["confidenceInterval"] = {"lowerBound": f"{value['low']:.6g}", "upperBound": f"{value['high']:.6g}"}
                yield found


def _base(dossier: Dossier) -> dict[str, Any]:
    base = dossier.subject.base
    return {
        "type": "machine-learning-model",
        "bom-ref": "base",
        "name": base.name,
        "version": base.digest[:_SHORT],
        "hashes": _hash(base.digest),
        "licenses": _licence(base.licence),
    }


def _dataset(dossier: Dossier) -> dict[str, Any]:
    dataset = dossier.subject.dataset
    facts = dataset.facts
    content = facts["counts"]
    return {
        "type": "data",
        "bom-ref": "dataset",
        "name": f"{dossier.project} dataset",
        "version": dataset.digest[:_SHORT],
        "hashes": _hash(dataset.digest),
        "licenses": [{"license": {"name": name}} for name in sorted(facts["counts"]["licence"])],
        "data": [{"type": "dataset", "name": f"{dossier.project} dataset", "description": f"{facts['records']} records, de-identified, split by cluster"}],
        "properties": _properties({f"{name}:{key}": value for name, counts in content.items() for key, value in counts.items()}),
    }


def _sources(dossier: Dossier) -> Iterator[dict[str, Any]]:
    for number, entry in enumerate(dossier.subject.dataset.facts["register"]):
        yield {
            "type": "data",
            "bom-ref": f"source-{number}",
            "name": entry["uri"],
            "hashes": _hash(entry["sha256"]),
            "licenses": _licence(entry["licence"]),
            "data": [{"type": "dataset", "name": entry["uri"]}],
            "properties": _properties({"basis": entry["basis"] or "not stated", "rows": entry["rows"]}),
        }


def _companions(dossier: Dossier) -> Iterator[dict[str, Any]]:
    """Yield the datasets of the projects that the expert was trained together with."""
    for number, item in enumerate(dossier.subject.companions):
        name = f"{item['project']} dataset"
        yield {
            "type": "data",
            "bom-ref": f"companion-{number}",
            "name": name,
            "version": item["dataset"][:_SHORT],
            "hashes": _hash(item["dataset"]),
            "licenses": [{"license": {"name": licence}} for licence in sorted({entry["licence"] or "unknown" for entry in item["sources"]})],
            "data": [{"type": "dataset", "name": name, "description": f"{item['examples']} examples of another project, trained along"}],
            "properties": _properties({f"source:{entry['uri']}": f"{entry['sha256']}, {entry['basis'] or 'basis not stated'}" for entry in item["sources"]}),
        }


def _packages(dossier: Dossier) -> Iterator[dict[str, Any]]:
    for name, version in sorted(dossier.subject.run.facts["environment"]["packages"].items()):
        plain = version.partition("+")[0]
        yield {"type": "library", "bom-ref": f"pypi-{name}", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{plain}"}
