"""A vault by its two paths: made where it is not there, opened once a process."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from metier.errors import PrivacyError
from metier.privacy.vault.keys import KeyFile, make_key
from metier.privacy.vault.tables import FILE
from metier.privacy.vault.vault import Vault

__all__ = ["opened_vault", "vault_with_key"]


def vault_with_key(folder: Path, key: Path) -> Vault:
    """Return the vault of a folder; a folder without one gets one, and a key that is not there is made for it.

    Raises PrivacyError if the vault is there and its key is not, or is another one.
    """
    if not key.exists():
        if (folder / FILE).exists():
            raise PrivacyError(f"{folder} has a vault, and {key}, its key, is not there\n    -> give the file of the key that the vault was made with")
        make_key(key)
    return opened_vault(folder, key)


@lru_cache(maxsize=4)
def opened_vault(folder: Path, key: Path) -> Vault:
    """Return the vault of a folder, opened once in this process. Raises PrivacyError if its key is missing, or another one."""
    return Vault.create(folder, KeyFile(key), project=folder.name)
