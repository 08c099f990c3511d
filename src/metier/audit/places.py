"""Where a project's log lies, by its settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from metier.audit.keys import Keys
from metier.audit.ledger import Ledger, open_ledger
from metier.audit.settings import AuditSettings

__all__ = ["Places", "open_project_ledger", "project_places"]


@dataclass(frozen=True, slots=True)
class Places:
    """Database (a path or a URL), heads file and keys folder of a project's log."""

    database: str | Path
    heads: Path
    keys: Path

    @property
    def on_a_server(self) -> bool:
        """Whether the database is not a file."""
        return isinstance(self.database, str) and not self.database.startswith("sqlite")

    @property
    def exist(self) -> bool:
        """Whether a log was begun here, as far as this machine's files tell; a server's database counts as one."""
        return self.on_a_server or self.heads.exists() or Path(self.database).exists()


def project_places(root: Path, settings: AuditSettings) -> Places:
    """Return where the log of the project in the folder `root` lies. Paths of the settings are relative to the project."""
    state = root / ".metier"
    heads = root / settings.heads if settings.heads else state / "ledger.heads.jsonl"
    return Places(_database(settings.url, root) or state / "ledger.sqlite", heads, root / settings.keys if settings.keys else state / "keys")


def _database(url: str | None, root: Path) -> str | Path | None:
    """The database of a URL; a file of SQLite as its path, relative to the project."""
    if url is not None and url.startswith("sqlite:///"):
        return root / url.removeprefix("sqlite:///")
    return url


def open_project_ledger(root: Path, settings: AuditSettings, *, restore_heads: bool = False) -> Ledger:
    """Open the log of the project in the folder `root`, beginning it if there is none. Raises LedgerError as `open_ledger` does."""
    found = project_places(root, settings)
    placed = settings.model_copy(update={"heads": str(found.heads)})
    return open_ledger(found.database, Keys.open(found.keys), placed, restore_heads=restore_heads)
