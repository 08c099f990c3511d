"""The data card for machines: JSON-LD after Croissant 1.0 (MLCommons), with the fields of its responsible-AI extension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metier.shards import SPLITS

__all__ = ["croissant"]

_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "metier": "https://metier.dev/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "repeated": "cr:repeated",
    "sc": "https://schema.org/",
    "source": "cr:source",
}
_FIELDS = {
    "id": "sc:Text",
    "text": "sc:Text",
    "label": "sc:Text",
    "language": "sc:Text",
    "domain": "sc:Text",
    "task": "sc:Text",
    "group": "sc:Text",
    "time": "sc:Text",
}
_COPIED = (
    "records",
    "rows",
    "counts",
    "drops",
    "duplicates",
    "identifiers",
    "disjoint",
    "lengths",
    "quality",
    "labels",
    "groups",
    "topics",
    "steps",
    "register",
)


def croissant(facts: Mapping[str, Any], *, title: str, gaps: Sequence[str] = ()) -> dict[str, Any]:
    """Return the card as JSON-LD: the dataset, its files by split, its fields, and what was done to it and is known of it.

    Everything that the Markdown card says stands under `metier:facts` too. Files are described by pattern: their digests stand in the
    dataset's manifest, which is written after the card.
    """
    licences = sorted({str(entry["licence"]) for entry in facts["register"]})
    sensitive = sorted({name for entry in facts["register"] for name in entry.get("sensitive") or ()})
    there = [split for split in SPLITS if facts["counts"]["split"].get(split)]
    card: dict[str, Any] = {
        "@context": dict(_CONTEXT),
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": title,
        "description": f"{facts['records']} records from {facts['rows']} source rows.",
        "license": licences,
        "inLanguage": sorted(facts["counts"]["language"]),
        "isBasedOn": [
            {"@type": "sc:CreativeWork", "name": entry["uri"], "license": entry["licence"], "sha256": entry["sha256"]} for entry in facts["register"]
        ],
        "distribution": [_file_set(split) for split in there],
        "recordSet": [_record_set(split) for split in there],
        "rai:dataCollection": "; ".join(f"{entry['uri']}: {entry['rows']} rows, basis {entry['basis'] or 'not stated'}" for entry in facts["register"]),
        "rai:dataPreprocessingProtocol": [f"{step['name']}: {step['settings']}" for step in facts["steps"]],
        "rai:dataLimitations": list(gaps),
        "rai:personalSensitiveInformation": sensitive or sorted(facts["identifiers"]),
        "rai:dataBiases": [remark for view in facts.get("groups") or () for remark in view["remarks"]],
    }
    if any(entry.get("retention") for entry in facts["register"]):
        card["rai:dataReleaseMaintenancePlan"] = "; ".join(
            f"{entry['uri']}: kept until {entry.get('retention') or 'not stated'}" for entry in facts["register"]
        )
    card["metier:facts"] = {name: facts[name] for name in _COPIED if name in facts}
    return card


def _file_set(split: str) -> dict[str, Any]:
    name = f"{split}-parts"
    return {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": "application/x-parquet", "includes": f"part-{split}-*.parquet"}


def _record_set(split: str) -> dict[str, Any]:
    fields = [_field(split, name, kind) for name, kind in _FIELDS.items()]
    return {"@type": "cr:RecordSet", "@id": split, "name": split, "field": fields}


def _field(split: str, name: str, kind: str) -> dict[str, Any]:
    source = {"fileSet": {"@id": f"{split}-parts"}, "extract": {"column": name}}
    return {"@type": "cr:Field", "@id": f"{split}/{name}", "name": f"{split}/{name}", "dataType": kind, "source": source}
