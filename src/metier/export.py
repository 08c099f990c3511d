"""The way out: a project's expert, with the decision on it, handed to the room that writes other runtimes' forms."""

from __future__ import annotations

from pathlib import Path

from metier import deploy, flow, models, registry
from metier.artifacts import Artifact
from metier.deploy.subject import find_adapter, run_of
from metier.errors import GateRefused
from metier.events import Record
from metier.flow import Ledger
from metier.progress import SILENT, Progress
from metier.project import Project
from metier.store import Store

__all__ = ["check", "export", "subject_of"]


def subject_of(project: Project, adapter: str | None = None, *, ledger: Ledger = None, online: bool = False, progress: Progress = SILENT) -> deploy.Subject:
    """Return an adapter of a project, by its digest or the present one, with its base, run, dataset, newest decision and release.

    Raises InputError for a digest that is none, StoreError if there is no adapter, and GateRefused if the log does not verify.
    """
    state = ledger() if ledger else None
    if state is not None and not state.intact:
        raise GateRefused(f"not exported: the log of events does not verify: {state.fault}\n    -> metier audit verify says more")
    store = project.store
    found = flow.newest(project, "adapter")[0] if adapter is None else find_adapter(store, adapter)
    run, dataset = run_of(found, store)
    base = models.resolve(project.settings.base, root=project.root, online=online, progress=progress)
    decision = _decision(found, store)
    release = None if decision is None else registry.released(store, decision)
    refusal = "nothing was decided on this adapter yet: metier run" if decision is None else registry.refusal(decision)
    if refusal is not None:
        refusal = refusal.removeprefix("not released: ")
    return deploy.Subject(project.settings.project, flow.author(project), found, run, dataset, base, decision, release, refusal)


def _decision(adapter: Artifact, store: Store) -> Artifact | None:
    """Return the newest decision on an adapter: an older one that passed does not help against a newer one that fails."""
    paths = sorted((store.root / "artifacts" / "decision").glob("*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
    found = [item for path in paths if (item := store.open("decision", path.parent.name)).facts["subject"]["adapter"] == adapter.digest]
    return found[-1] if found else None


def check(project: Project, wish: deploy.Wish, out: Path, *, adapter: str | None = None, ledger: Ledger = None, online: bool = False) -> deploy.Subject:
    """Check everything that can be checked before an export is written, and return what would be exported. Writes nothing into the project."""
    wish.check()
    subject = subject_of(project, adapter, ledger=ledger, online=online)
    deploy.check(subject, wish, out, project.store)
    return subject


def export(
    project: Project,
    wish: deploy.Wish,
    out: Path,
    *,
    adapter: str | None = None,
    record: Record | None = None,
    ledger: Ledger = None,
    progress: Progress = SILENT,
    online: bool = False,
) -> deploy.Exported:
    """Export an adapter of a project; see `metier.deploy.export`."""
    wish.check()
    with project.store.lock():
        subject = subject_of(project, adapter, ledger=ledger, online=online, progress=progress)
        return deploy.export(subject, wish, out, store=project.store, record=record, progress=progress)
