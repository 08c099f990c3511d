"""The stage that decides: evidence and approvals in, a decision out, for machines and for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from metier.artifacts import Artifact
from metier.compliance.catalogue import Rule, rules
from metier.compliance.evidence import measurements
from metier.compliance.gate import Approval, Decision, Findings
from metier.compliance.gate import decide as gate
from metier.compliance.settings import ComplianceSettings
from metier.digest import canonical_json, digest_of
from metier.errors import StoreError
from metier.packs.spec import Pack
from metier.store import Store, Workspace, remove_folder, write_atomically

__all__ = ["approval_of", "decide", "decided"]

_VERDICTS = {
    "pass": "pass: no critical control fails or waits.",
    "fail": "fail: a critical control fails; this may not be released.",
    "awaiting": "awaiting: nothing critical fails, and people have to attest or approve before a release.",
}


def approval_of(artifact: Artifact) -> Approval:
    """Return the approval that an artefact of that kind holds."""
    facts = artifact.facts
    return Approval(facts["by"], facts["evidence"], tuple(facts["controls"]), facts["note"], facts["time"], artifact.digest)


def decided(evidence: Artifact, approvals: Sequence[Artifact], wanted: Sequence[Rule], store: Store) -> Decision:
    """Read evidence and approvals and run the gate on them. Raises StoreError if one of them was changed on disk."""
    for item in approvals:
        if store.damaged(item):
            raise StoreError(f"the approval {item.digest[:12]} was changed after it was given\n    -> remove its folder; approve again")
    findings = Findings(evidence.digest, evidence.facts["author"], measurements(evidence, store, wanted))
    return gate(findings, wanted, [approval_of(item) for item in approvals])


def decide(evidence: Artifact, approvals: tuple[Artifact, ...], pack: Pack, settings: ComplianceSettings, *, workspace: Workspace) -> Artifact:
    """Decide on evidence with the approvals given for it and return the decision artefact: decision.json and decision.md."""
    wanted = rules(pack, settings)
    decision = decided(evidence, approvals, wanted, workspace.store)
    folder = workspace.folder / "decision"
    remove_folder(folder)
    folder.mkdir(parents=True)
    facts = {**decision.as_facts(), "subject": evidence.facts["subject"], "rules": digest_of([rule.as_facts() for rule in wanted])}
    facts |= {"approvals": [item.digest for item in approvals if item.facts["by"] in decision.approved]}
    document = {**facts, "catalogue": [rule.as_facts() for rule in wanted]}
    write_atomically(folder / "decision.json", canonical_json(document))
    write_atomically(folder / "decision.md", ("\n".join(_page(decision, wanted, pack)) + "\n").encode())
    return workspace.commit("decision", folder, parents=[evidence.digest, *facts["approvals"]], facts=facts)


def _page(decision: Decision, wanted: Sequence[Rule], pack: Pack) -> Iterator[str]:
    yield f"# Decision: {decision.verdict}"
    yield ""
    yield _VERDICTS[decision.verdict]
    yield ""
    yield f"Evidence `{decision.evidence}`, author {_cell(decision.author)}, approved by {_cell(', '.join(decision.approved)) or 'nobody yet'}."
    yield "Controls are mapped to clauses; none of them says that a regulation is complied with."
    yield ""
    yield "| control | mapped to | status | measured | threshold | critical | why |"
    yield "|---|---|---|---|---|---|---|"
    for rule, item in zip(sorted(wanted, key=lambda rule: rule.id), decision.controls, strict=True):
        title = rule.title.get("en") or next(iter(rule.title.values()), rule.id)
        measured, threshold = (_number(value) for value in (item.measured, item.threshold))
        cells = [f"{rule.id}: {title}", rule.clause, item.status, measured, threshold, "yes" if item.critical else "no", item.why]
        yield f"| {' | '.join(map(_cell, cells))} |"
    yield ""
    yield "| regime | coverage (decided of applicable) | pass rate (of decided) | blocked |"
    yield "|---|---|---|---|"
    for name, entry in decision.regimes.items():
        shares = ["-" if entry[key] is None else f"{entry[key]:.0%}" for key in ("coverage", "pass_rate")]
        yield f"| {_cell(name)} | {shares[0]} | {shares[1]} | {'yes' if entry['blocked'] else 'no'} |"
    yield ""
    yield f"Pack {pack.facts.name} {pack.facts.version}. A critical control weighs three times."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
