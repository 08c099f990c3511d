"""Settings of the gate: which regimes are counted, which licences are allowed, what does not apply and why."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from metier.config import Settings

__all__ = ["ComplianceSettings"]

_Threshold = Annotated[float, Field(allow_inf_nan=False)]


class ComplianceSettings(Settings):
    """What an expert is held to before it may be released."""

    regimes: tuple[str, ...] = ()
    """Regimes that the pack's controls are decided for, as they stand in the clauses (`GDPR`, `PIPL`); none named: all."""
    licences: tuple[str, ...] = (
        "internal",
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CDLA-Permissive-2.0",
        "ISC",
        "MIT",
        "ODC-By-1.0",
        "PDDL-1.0",
        "Unlicense",
        "public domain",
        "gemma",
        "Gemma Terms of Use",
    )
    """Licences that sources and the base model may have: SPDX identifiers, or names as the project writes them."""
    base_licence: str | None = None
    """Licence of the base model where its folder states none."""
    thresholds: dict[str, _Threshold] = {}
    """Another threshold for a control, by its id: `{DG-01: 0.002}`. The decision shows it."""
    not_applicable: dict[str, str] = {}
    """Controls that do not apply, each with the reason: `{TR-02: answers are read by staff only}`."""
    author: str | None = None
    """Who answers for the training; default: the user who runs it. The author cannot approve."""

    @model_validator(mode="after")
    def _reasons(self) -> ComplianceSettings:
        if empty := [control for control, reason in self.not_applicable.items() if not reason.strip()]:
            raise ValueError(f"give the reason why {', '.join(empty)} does not apply")
        return self
