"""The vault: originals of replaced values, encrypted and apart from the data, found again by tokens, forgotten one person at a time.

Names are loaded when they are first used: the vault needs SQLAlchemy and cryptography, de-identification does not.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from metier.privacy.vault.erasure import Erasure, erase
    from metier.privacy.vault.keys import KeyFile, make_key
    from metier.privacy.vault.opening import opened_vault, vault_with_key
    from metier.privacy.vault.restoring import restored, tokens_in
    from metier.privacy.vault.vault import Original, SubjectTokens, Vault, VaultState
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "erasure": ["Erasure", "erase"],
            "keys": ["KeyFile", "make_key"],
            "opening": ["opened_vault", "vault_with_key"],
            "restoring": ["restored", "tokens_in"],
            "vault": ["Original", "SubjectTokens", "Vault", "VaultState"],
        },
    )

__all__ = [
    "Erasure",
    "KeyFile",
    "Original",
    "SubjectTokens",
    "Vault",
    "VaultState",
    "erase",
    "make_key",
    "opened_vault",
    "restored",
    "tokens_in",
    "vault_with_key",
]
