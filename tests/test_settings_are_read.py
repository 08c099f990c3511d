"""No key of the project file is decoration: one run with every feature on reads each of them, in the code that does the work."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import httpx
import openpyxl
import pytest
import torch

from cli.hives import rows, write_jsonl
from metier import flow, packs
from metier.artifacts import Artifact
from metier.cli.chain import chain
from metier.config import Settings
from metier.digest import digest_file
from metier.engines import engine_of
from metier.models import Base
from metier.project import Project, ProjectSettings, load_project
from metier.serving import ApiKeys, Engine, Guard, Served, Service, build_app
from metier.serving.server import configure

PROJECT = """metier: 1
project: everything
pack: example
languages: [zh, en]
base: {base}
malformed: 0.02
sources:
  - {{path: data/hives.jsonl, format: auto, encoding: auto, licence: CC0-1.0, basis: none needed, columns: {{note: note, frames: frames, season: season}},
     subject: keeper, group: apiary, time: seen, templates: [season-zh, season-en]}}
  - {{path: data/talk.csv, format: csv, licence: CC0-1.0, columns: {{prompt: q, completion: a}}, language: en, task: talk, time: seen, malformed: 0.5}}
  - {{path: data/rows.xml, format: xml, rows: row, licence: CC0-1.0, columns: {{prompt: q, completion: a}}, time: seen}}
  - {{path: data/rules.md, licence: CC0-1.0, time: file, read: {{chunk: {{characters: 60, overlap: 20, by: heading, tables: rows, headings: path}}}}}}
  - {{path: data/rows.xlsx, licence: CC0-1.0, columns: {{note: note}}, read: {{missing: {{values: [NA], policy: drop}}}}}}
prepare:
  deidentify: {{replace: mask}}
  split: {{time: true}}
training: {{epochs: 2, learning_rate: 0.3, rank: 2, alpha: 4, dropout: 0.1, batch: {{row_tokens: 2048, rows: 2}}, precision: float32}}
evaluation: {{retention_items: 20, limit: 4, free_text_limit: 1, resamples: 100, max_new_tokens: 4, examples: 1, question: 为什么？}}
serving: {{port: 0, rows: 2, context: 128, max_new_tokens: 8}}
"""


def _write(folder: Path, base: Base) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "metier.yaml").write_text(PROJECT.format(base=base.folder), encoding="utf-8")
    seen = [f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}" for number in range(80)]
    found = [{**row, "apiary": f"apiary {number % 30}", "seen": seen[number]} for number, row in enumerate(rows(60))]
    found.append({**found[0], "note": f"{found[0]['note']}是的"})
    write_jsonl(folder / "data" / "hives.jsonl", found)
    with (folder / "data" / "talk.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["q", "a", "seen"])
        writer.writerows(
            [f"Why is comb {number} of {row['keeper']} {row['note']}?", f"Because of the bees, {number}.", seen[number]]
            for number, row in enumerate(rows(20, seed=5))
        )
    elements = "".join(
        f"<row><q>为什么{row['note']}</q><a>因为{row['season']}</a><seen>{2024 + number // 14}-06-01</seen></row>"
        for number, row in enumerate(rows(20, seed=6))
    )
    (folder / "data" / "rows.xml").write_text(f"<rows>{elements}</rows>", encoding="utf-8")
    _write_documents(folder / "data")


def _write_documents(folder: Path) -> None:
    (folder / "rules.md").write_text("# Rules\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" + "Bees are kept in hives of wood. " * 6, encoding="utf-8")
    book = openpyxl.Workbook()
    for row in (["note", "other"], ["NA", 1], ["three frames of honey", 2]):
        book.active.append(row)
    book.active.row_dimensions[3].hidden = True
    book.save(folder / "rows.xlsx")


def _inside(value: Any) -> Iterator[type[Settings]]:
    """Yield the classes of the settings that are used in a project, each as often as it stands there."""
    if isinstance(value, Settings):
        yield type(value)
        for name in type(value).model_fields:
            yield from _inside(object.__getattribute__(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _inside(item)


def _with_a_choice(kind: type[Settings]) -> list[str]:
    """Return the keys that can have more than one value; the parser itself refuses another value of the rest."""
    return [name for name, field in kind.model_fields.items() if not (get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1)]


def _serve(project: Project, base: Base, adapter: Artifact) -> None:
    """Answer one question with the project's settings."""
    settings, keys = project.settings.serving, ApiKeys(project.store.root / "keys")
    files = {path.name: digest_file(path) for path in adapter.path.iterdir()}
    released = Served("expert", adapter.path, adapter.digest, "release", base.digest, files)
    engine = Engine.open(base, [released], settings, dtype=torch.float32)
    app = build_app(Service(engine, Guard(packs.load(project.settings.pack)), keys, lambda event: 0, settings))
    configure(app, settings)
    headers = {"authorization": f"Bearer {keys.new('tester')}"}

    async def ask() -> httpx.Response:
        async with app.app.router.lifespan_context(app.app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.post("/v1/chat/completions", headers=headers, json={"model": "expert", "messages": [{"role": "user", "content": "x"}]})

    assert asyncio.run(ask()).status_code == 200


def test_every_key_of_the_project_file_is_read_by_a_full_run(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "project", base)
    project = load_project(tmp_path / "project")
    seen: set[tuple[str, str]] = set()

    def reading(self: Settings, name: str) -> Any:
        seen.add((type(self).__name__, name))
        return object.__getattribute__(self, name)

    # Loading and its validators are over: from here on only the rooms read.
    monkeypatch.setattr(Settings, "__getattribute__", reading)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with chain(project) as tied:
        outcome = flow.run(project, recorder=tied.keep, ledger=tied.verified, engine=engine_of(project.settings.engine))
    assert outcome.adapter is not None
    _serve(project, base, outcome.adapter)
    torch.set_num_threads(threads)
    monkeypatch.undo()
    assert outcome.evaluation is not None
    used = set(_inside(project.settings))
    assert ProjectSettings in used
    unread = sorted(f"{kind.__name__}.{name}" for kind in used for name in _with_a_choice(kind) if (kind.__name__, name) not in seen)
    assert unread == []
