"""Scores of the medical tasks that the general metrics do not give: 1.0 right, 0.0 wrong, for one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metier_medical.parsing import consultation, icd_code

__all__ = ["category_match", "department_match", "urgency_match", "valid_format"]


def category_match(answer: str, fields: Mapping[str, Any]) -> float:
    """Return 1.0 if the answer's code has the category of the target: the first three characters (WHO, ICD-10 volume 2, 2.4)."""
    given, wanted = icd_code(answer), icd_code(str(fields["target"]))
    return float(given is not None and wanted is not None and given[:3] == wanted[:3])


def _same(answer: str, fields: Mapping[str, Any], field: str) -> float:
    given, wanted = consultation(answer), consultation(str(fields["target"]))
    return float(given is not None and wanted is not None and given[field].casefold() == wanted[field].casefold())


def department_match(answer: str, fields: Mapping[str, Any]) -> float:
    """Return 1.0 if the answer is a consultation that sends to the department of the target."""
    return _same(answer, fields, "department")


def urgency_match(answer: str, fields: Mapping[str, Any]) -> float:
    """Return 1.0 if the answer is a consultation with the urgency of the target."""
    return _same(answer, fields, "urgency")


def valid_format(answer: str, fields: Mapping[str, Any]) -> float:
    """Return 1.0 if the answer is a consultation with department, advice and urgency."""
    return float(consultation(answer) is not None)
