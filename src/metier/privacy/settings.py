"""What a project says of personal identifiers: the part `deidentify:` of its preparation."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import model_validator

from metier.config import Settings
from metier.privacy.names.settings import NamesSettings
from metier.privacy.policy import Policy, load_policy

__all__ = ["DeidentifySettings", "VaultSettings", "policy_of", "with_policy"]

Disguise: TypeAlias = Literal["surrogate", "mask", "hash", "token"]


class VaultSettings(Settings):
    """Where the originals are kept, encrypted, for those who must be able to go back."""

    folder: str = "vault"
    """Folder of the vault; relative paths start at the project folder. It is made if it is not there."""
    key: str
    """File of its master key, made if it is not there. Keep it apart from project and vault, and keep a backup of it."""


class DeidentifySettings(Settings):
    """What happens to personal identifiers."""

    enabled: bool = True
    """Switch off only for data that holds no personal data, or that was de-identified before."""
    policy: str | Policy = "safe-harbor"
    """Which identifiers are replaced, and how: safe-harbor (or hipaa), pipl, gdpr, strict, or a YAML file of your own in the project."""
    replace: Disguise | None = None
    """One disguise for all values that the policy disguises; what it generalises, moves, removes or keeps stays so. Left out: the policy's own,
    and `token` with a vault."""
    dates: Literal["year", "shift"] | None = None
    """Cut dates to the year, or move them by one number of days per subject. Left out: as the policy says; Safe Harbor lets only the year stay."""
    vault: VaultSettings | None = None
    """Keep the originals; left out, there is no way back."""
    names: NamesSettings = NamesSettings()
    """Who looks for the names of people beside the rules."""
    sweep: bool = True
    """Search the result a second time, by rules of another make. They take too much rather than too little: a record they stop at leaves the dataset."""

    @model_validator(mode="after")
    def _tokens_have_a_vault(self) -> DeidentifySettings:
        if self.replace == "token" and self.vault is None:
            raise ValueError("tokens are those of a vault: add `vault: {key: FILE}`, or choose `hash`, which nothing opens")
        return self


def policy_of(settings: DeidentifySettings, *, root: Path | None = None) -> Policy:
    """Return the policy as the settings change it. A file is looked for relative to `root`. Raises ConfigError for a faulty one."""
    if isinstance(settings.policy, str):
        return _named(settings.policy, settings.replace, settings.dates, root)
    return settings.policy.disguised(settings.replace).dated(settings.dates)


@lru_cache(maxsize=16)
def _named(policy: str, disguise: Disguise | None, dates: Literal["year", "shift"] | None, root: Path | None) -> Policy:
    return load_policy(policy, root=root).disguised(disguise).dated(dates)


def with_policy(settings: DeidentifySettings, root: Path) -> DeidentifySettings:
    """Return the settings with a policy file of the project read into them, so that its content belongs to the identity of what is built."""
    if isinstance(settings.policy, str) and settings.policy.endswith((".yaml", ".yml")):
        return settings.model_copy(update={"policy": load_policy(settings.policy, root=root)})
    return settings
