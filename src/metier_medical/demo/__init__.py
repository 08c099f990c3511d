"""The pack's example project: visits, consultations and disease terms in two languages, made by a seeded generator from real terms."""

from __future__ import annotations

from metier_medical.demo.project import write_project

__all__ = ["write_project"]
