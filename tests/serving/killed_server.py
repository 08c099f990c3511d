"""A server in a process of its own, to be killed: prints its address and a key, then answers until it dies."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from metier import packs
from metier.audit import AuditSettings, open_project_ledger
from metier.models import resolve
from serving.conftest import SETTINGS, running, served


def main() -> None:
    """Run the server of `test_every_answer_a_client_received_survives_kill_9`."""
    base, adapter, folder = (Path(item) for item in sys.argv[1:])
    found = resolve(str(base), root=base)
    record = open_project_ledger(folder, AuditSettings()).record
    with running(found, [served(found, "alpha", adapter)], packs.load("medical"), folder, SETTINGS, record) as server:
        sys.stdout.write(f"{server.url} {server.key}\n")
        sys.stdout.flush()
        threading.Event().wait()


main()
