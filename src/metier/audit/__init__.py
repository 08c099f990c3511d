"""The audit log: append-only, signed, verifiable by somebody who has the public key and nothing else.

Names are loaded when they are first used. The verifying half needs only the standard library and `cryptography`, so this
package does not even import the helper that other rooms load lazily with.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metier.audit import offline
    from metier.audit.bundle import check_target, write_bundle
    from metier.audit.entries import Entry
    from metier.audit.keys import Keys
    from metier.audit.ledger import Ledger, LedgerState, Receipt, open_ledger
    from metier.audit.notes import PublicKey, SignedHead
    from metier.audit.places import Places, open_project_ledger, project_places
    from metier.audit.settings import AuditSettings
    from metier.audit.verdict import Verdict

_HOMES = {
    "AuditSettings": "settings",
    "Entry": "entries",
    "Keys": "keys",
    "Ledger": "ledger",
    "LedgerState": "ledger",
    "Places": "places",
    "PublicKey": "notes",
    "Receipt": "ledger",
    "SignedHead": "notes",
    "Verdict": "verdict",
    "check_target": "bundle",
    "offline": "",
    "open_ledger": "ledger",
    "open_project_ledger": "places",
    "project_places": "places",
    "write_bundle": "bundle",
}

__all__ = [
    "AuditSettings",
    "Entry",
    "Keys",
    "Ledger",
    "LedgerState",
    "Places",
    "PublicKey",
    "Receipt",
    "SignedHead",
    "Verdict",
    "check_target",
    "offline",
    "open_ledger",
    "open_project_ledger",
    "project_places",
    "write_bundle",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module; `offline` is a module itself."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    return getattr(import_module(f"{__name__}.{home}"), name) if home else import_module(f"{__name__}.{name}")
