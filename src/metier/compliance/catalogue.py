"""The controls of a project: those of the core, refined and extended by its pack, adjusted by its settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from metier.compliance.settings import ComplianceSettings
from metier.errors import ConfigError, Fault, PackError, nearest
from metier.packs.loader import read_list
from metier.packs.spec import Control, Pack

__all__ = ["CHAIN", "Rule", "rules"]

CHAIN = frozenset({"lineage", "safe_formats", "ledger_intact", "separate_approval"})
"""Checks that hold the chain of evidence together: their controls cannot be set aside."""

_REGIME = re.compile(r"[^\d(]+")


@dataclass(frozen=True, slots=True)
class Rule:
    """One control as it is decided in this project. `set_aside` is the reason why it does not apply, if it does not."""

    id: str
    clause: str
    title: Mapping[str, str]
    check: str
    threshold: float | None
    critical: bool
    by: str
    origin: str
    set_aside: str | None = None

    @property
    def regimes(self) -> tuple[str, ...]:
        """The regimes of its clauses: what stands before the first number of each."""
        found = [match.group().strip(" ,.") for part in self.clause.split(";") if (match := _REGIME.match(part.strip()))]
        return tuple(dict.fromkeys(name for name in found if name))

    def as_facts(self) -> dict[str, Any]:
        """Return the rule in its JSON form."""
        return {**asdict(self), "title": dict(self.title), "regimes": list(self.regimes)}


@lru_cache(maxsize=1)
def _core() -> tuple[Rule, ...]:
    _, items, faults = read_list(Path(__file__).parent / "data" / "controls.yaml", "controls", Control)
    if faults:
        raise PackError(faults)
    return tuple(_rule(control, "core") for _, control in items)


def _rule(control: Control, origin: str) -> Rule:
    return Rule(control.id, control.clause, control.title, control.check, control.threshold, control.critical, control.by, origin)


def rules(pack: Pack, settings: ComplianceSettings) -> tuple[Rule, ...]:
    """Return the controls of a project in the order of their ids.

    A pack that names a control of the core refines it: clauses add up, title, threshold and who decides are the pack's, and what
    is critical stays so. Raises PackError for one that has another check, ConfigError with all faults of the settings.
    """
    found = {rule.id: rule for rule in _core()}
    for control in pack.controls:
        rule = _rule(control, pack.facts.name)
        found[rule.id] = _refined(found[rule.id], rule, pack) if rule.id in found else rule
    if faults := list(_faults(found, settings)):
        raise ConfigError(faults)
    chosen = {name.casefold() for name in settings.regimes}
    return tuple(_adjusted(rule, settings, chosen) for _, rule in sorted(found.items()))


def _refined(core: Rule, own: Rule, pack: Pack) -> Rule:
    if own.check != core.check:
        raise PackError(
            Fault(
                f"{own.id} has the check {own.check!r}, in the core it is {core.check!r}",
                pack.folder / "controls.yaml",
                remedy="give a control of another kind an id of its own",
            )
        )
    clauses = [part.strip() for part in f"{core.clause};{own.clause}".split(";")]
    return replace(own, clause="; ".join(dict.fromkeys(clauses)), critical=own.critical or core.critical, origin=f"core and {own.origin}")


def _faults(found: Mapping[str, Rule], settings: ComplianceSettings) -> Iterator[Fault]:
    for key in ("thresholds", "not_applicable"):
        for name in getattr(settings, key):
            if name not in found:
                yield Fault(f"there is no control {name!r}", key=f"compliance.{key}", remedy=nearest(name, list(found)))
    for name in settings.not_applicable:
        if name in found and found[name].check in CHAIN:
            yield Fault(f"{name} holds the evidence together and always applies", key="compliance.not_applicable", remedy=f"remove {name}")
    known = {regime.casefold(): regime for rule in found.values() for regime in rule.regimes}
    for name in settings.regimes:
        if name.casefold() not in known:
            yield Fault(f"no control is mapped to {name!r}", key="compliance.regimes", remedy=nearest(name, list(known.values())))


def _adjusted(rule: Rule, settings: ComplianceSettings, chosen: set[str]) -> Rule:
    threshold = settings.thresholds.get(rule.id, rule.threshold)
    reason = settings.not_applicable.get(rule.id)
    if reason is None and chosen and not rule.origin.startswith("core") and not chosen & {name.casefold() for name in rule.regimes}:
        reason = "not mapped to the regimes that the project names"
    return replace(rule, threshold=threshold, set_aside=reason)
