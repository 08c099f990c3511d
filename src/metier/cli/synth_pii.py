"""`metier data synth-pii`: sentences with invented identifiers, to measure a detector with."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from metier.cli.results import json_line
from metier.privacy.synthetic import VARIANTS, examples, presidio

__all__ = ["synth_pii"]


def synth_pii(
    *,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="JSONL file that is written.")],
    language: Annotated[str, typer.Option("--language", help="Language of the sentences: zh or en.")] = "zh",
    count: Annotated[int, typer.Option("-n", "--count", min=1, metavar="N", help="Texts to write.")] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="The same seed writes the same file.")] = 1,
    variants: Annotated[str, typer.Option("--variants", metavar="NAME,...", help="Ways in which values are disfigured; default: all.")] = ",".join(VARIANTS),
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as JSON.")] = False,
) -> None:
    """Write sentences with invented identifiers and their places, right by check digit, from a seed."""
    kinds: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="\n") as file:
        for example in examples(language, count, seed=seed, variants=[name.strip() for name in variants.split(",") if name.strip()]):
            kinds.update(span.type for span in example.spans)
            ways.update(span.rule or "" for span in example.spans)
            file.write(json.dumps(presidio(example), ensure_ascii=False) + "\n")
    if as_json:
        typer.echo(json_line({"file": str(out), "texts": count, "kinds": dict(sorted(kinds.items())), "variants": dict(sorted(ways.items()))}))
        return
    typer.echo(f"{count} texts with {kinds.total()} identifiers of {len(kinds)} kinds in {out}")
