"""What a project says of personal identifiers: the part `deidentify:` of its preparation."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from metier.config import Settings
from metier.privacy.names.settings import NamesSettings
from metier.privacy.policy import Policy, load_policy

__all__ = ["DeidentifySettings", "policy_of", "with_policy"]


class DeidentifySettings(Settings):
    """What happens to personal identifiers."""

    enabled: bool = True
    """Switch off only for data that holds no personal data, or that was de-identified before."""
    policy: str | Policy = "safe-harbor"
    """Which identifiers are replaced, and how: safe-harbor (or hipaa), pipl, gdpr, strict, or a YAML file of your own in the project."""
    replace: Literal["surrogate", "mask", "hash"] | None = None
    """One disguise for all values that the policy disguises; what it generalises, moves, removes or keeps stays so. Left out: the policy's own."""
    dates: Literal["year", "shift"] | None = None
    """Cut dates to the year, or move them by one number of days per subject. Left out: as the policy says; Safe Harbor lets only the year stay."""
    names: NamesSettings = NamesSettings()
    """Who looks for the names of people beside the rules."""
    sweep: bool = True
    """Search the result a second time, by rules of another make. They take too much rather than too little: a record they stop at leaves the dataset."""


def policy_of(settings: DeidentifySettings, *, root: Path | None = None) -> Policy:
    """Return the policy as the settings change it. A file is looked for relative to `root`. Raises ConfigError for a faulty one."""
    if isinstance(settings.policy, str):
        return _named(settings.policy, settings.replace, settings.dates, root)
    return settings.policy.disguised(settings.replace).dated(settings.dates)


@lru_cache(maxsize=16)
def _named(policy: str, disguise: Literal["surrogate", "mask", "hash"] | None, dates: Literal["year", "shift"] | None, root: Path | None) -> Policy:
    return load_policy(policy, root=root).disguised(disguise).dated(dates)


def with_policy(settings: DeidentifySettings, root: Path) -> DeidentifySettings:
    """Return the settings with a policy file of the project read into them, so that its content belongs to the identity of what is built."""
    if isinstance(settings.policy, str) and settings.policy.endswith((".yaml", ".yml")):
        return settings.model_copy(update={"policy": load_policy(settings.policy, root=root)})
    return settings
