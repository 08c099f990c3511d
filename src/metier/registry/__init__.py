"""What may be served and why: approvals by others, signed releases, and the way from an answer back to the source's bytes."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from metier.registry.approvals import approvals_of, approve
    from metier.registry.impact import Impact, impact
    from metier.registry.lineage import Trace, trace
    from metier.registry.releases import Release, Signer, newest, open_release, refusal, release, released, releases
else:
    __getattr__, _, _ = lazy_loader.attach(
        __name__,
        submod_attrs={
            "approvals": ["approvals_of", "approve"],
            "impact": ["Impact", "impact"],
            "lineage": ["Trace", "trace"],
            "releases": ["Release", "Signer", "newest", "open_release", "refusal", "release", "released", "releases"],
        },
    )

__all__ = [
    "Impact",
    "Release",
    "Signer",
    "Trace",
    "approvals_of",
    "approve",
    "impact",
    "newest",
    "open_release",
    "refusal",
    "release",
    "released",
    "releases",
    "trace",
]
