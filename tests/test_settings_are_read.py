"""No key of the project file is decoration: one run with every feature on reads each of them, in the code that does the work."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import httpx
import openpyxl
import pytest
import torch

from cli.hives import rows, write_jsonl
from endpoint import endpoint
from metier import flow, packs
from metier.artifacts import Artifact
from metier.cli.chain import chain
from metier.config import Settings, load_yaml
from metier.digest import digest_file
from metier.engines import engine_of
from metier.engines.attempt import Answer
from metier.errors import ModelError
from metier.models import Base
from metier.models.labels import Labelling
from metier.prepare.language import detect
from metier.project import Project, ProjectSettings, load_project
from metier.serving import ApiKeys, Guard, Served, Service, build_app, open_workers
from metier.serving.server import configure
from metier.shards import dataset_records, write_records
from metier.store import Store
from metier.training import Member, TrainingSettings, train
from metier.training.classweights import class_weights
from metier.training.examples import Labelled
from metier.training.labelled import fit_labelling
from metier.training.settings import ObjectiveSettings, PrivacySettings
from metier.training.sweep import read_space, search
from metier.training.sweep.job import Job
from metier.training.sweep.trials import failed

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
  standardize: {{enabled: true, mode: replace, lexicons: [data/terms.yaml]}}
  lengths: {{over: drop, maximum_tokens: 400}}
  quality: {{drop: true, model: base, encoder: base, knowledge: data/knowledge, thresholds: {{use: 0.2, review: 0.1}}}}
  labels: {{suspects: true, folds: 2, least: 2}}
  groups: {{columns: [season], topics: 2}}
  split: {{time: true}}
  augment: {{enabled: true, elsewhere: {{path: data/elsewhere.txt, licence: CC0-1.0}}, shares: {{refusal: 0.1, written: 1.0, translated: 0.1}}}}
  generate: {{enabled: true, knowledge: data/knowledge, variants: 1, lowest_score: 0, follow_up: 1.0,
    question: {{lowest: 0, highest: 1, shortest: 0.01, longest: 50}}}}
  writer: {{use: endpoint, endpoint: {{url: '{url}', model: written, tries: 1}}}}
  mix: {{replay: {{share: 0.1, task: talk}}, curriculum: {{by: nothing, missing: hard}}}}
training: {{learning_rate: 0.3, adaptation: {{rank: 2, alpha: 4, dropout: 0.1}}, batch: {{row_tokens: 2048, rows: 2}}, precision: float32,
  objectives: {{smoothing: 0.1, focal: 1.0, kl: 0.1, start: 0.001, ewc: 0.1, distillation: {{teacher: {base}, weight: 0.1, temperature: 2.0}}}},
  replay: {{share: 0.1, written: 2, max_new_tokens: 8}},
  stages: [{{name: all, epochs: 2, records: {{source: ['*']}}, shares: {{by: language, alpha: 0.5}}}}]}}
sweep: {{trials: 1, search: {{learning_rate: {{low: 0.1, high: 0.3}}}}}}
evaluation: {{retention_items: 20, limit: 4, free_text_limit: 1, resamples: 100, max_new_tokens: 4, examples: 1, question: 为什么？}}
serving: {{port: 0, rows: 2, context: 128, max_new_tokens: 8}}
"""


def _write(folder: Path, base: Base, url: str) -> None:
    (folder / "data").mkdir(parents=True)
    (folder / "metier.yaml").write_text(PROJECT.format(base=base.folder, url=url), encoding="utf-8")
    seen = [f"2024-{1 + number % 12:02d}-{1 + number % 28:02d}" for number in range(80)]
    found = [{**row, "apiary": f"apiary {number % 30}", "seen": seen[number]} for number, row in enumerate(rows(60))]
    found.append({**found[0], "note": f"{found[0]['note']}是的"})
    write_jsonl(folder / "data" / "hives.jsonl", found)
    with (folder / "data" / "talk.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["q", "a", "seen"])
        writer.writerows(
            [f"Why is comb {number} of {row['keeper']} without varroa, with QMP, {row['note']}?", f"Because of the bees, {number}.", seen[number]]
            for number, row in enumerate(rows(20, seed=5))
        )
        writer.writerow(["Which words follow?", " ".join(f"word{number}" for number in range(400)), seen[0]])
    elements = "".join(
        f"<row><q>为什么{row['note']}</q><a>因为{row['season']}</a><seen>{2024 + number // 14}-06-01</seen></row>"
        for number, row in enumerate(rows(20, seed=6))
    )
    (folder / "data" / "rows.xml").write_text(f"<rows>{elements}</rows>", encoding="utf-8")
    _write_documents(folder / "data")


def _write_documents(folder: Path) -> None:
    (folder / "rules.md").write_text("# Rules\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n" + "Bees are kept in hives of wood. " * 6, encoding="utf-8")
    (folder / "elsewhere.txt").write_text("How is bread baked?\n面包怎么烤？\n", encoding="utf-8")
    (folder / "knowledge").mkdir()
    (folder / "knowledge" / "hives.md").write_text(
        "# Hives\n\nBees are kept in hives of wood. A comb without varroa is made of wax.\n\n蜂箱用木头做成。\n", encoding="utf-8"
    )
    term = "{code: B9, system: own, preferred: {en: queen mandibular pheromone}, variants: [QMP]}"
    (folder / "terms.yaml").write_text(f"lexicon:\n  - {term}\n", encoding="utf-8")
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
    workers = open_workers(base, [released], settings, dtype=torch.float32)
    app = build_app(Service(workers, Guard(packs.load(project.settings.pack)), keys, lambda event: 0, settings))
    configure(app, settings)
    headers = {"authorization": f"Bearer {keys.new('tester')}"}

    async def ask() -> httpx.Response:
        async with app.app.router.lifespan_context(app.app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            return await client.post("/v1/chat/completions", headers=headers, json={"model": "expert", "messages": [{"role": "user", "content": "x"}]})

    assert asyncio.run(ask()).status_code == 200


class _Untrained:
    """Workers of a sweep that train nothing."""

    def start(self, job: Job) -> None:
        self.number = job.number

    def next(self) -> tuple[int, Answer]:
        return self.number, (True, failed("not trained"))


def _sweep(project: Project, base: Base, dataset: Artifact) -> None:
    """Draw a trial as the project's settings say."""
    settings = project.settings
    # With stages nothing is pruned.
    training = settings.training.model_copy(update={"stages": ()})
    space = read_space(training, settings.sweep, load_yaml(project.root / "metier.yaml"))
    with pytest.raises(ModelError, match="not trained"):
        search(dataset, base, space, settings.sweep, folder=project.root / ".metier" / "sweep", project="x", workers=nullcontext(_Untrained()))


def _otherwise(base: Base, dataset: Artifact, store: Store) -> None:
    """Train as the project cannot at once: privately; together with another project; and weigh and state labels, of which its answers have none."""
    chosen = {"privacy": {"epsilon": 50.0, "accountant": "rdp", "units": 4}, "validation": {"times": 0}, "precision": "float32", "epochs": 0.1}
    train(dataset, base, TrainingSettings.model_validate(chosen), workspace=store.workspace("private"))
    joint = {"adaptation": {"joint": {"projects": ["../other"], "alpha": 0.5}}, "precision": "float32", "epochs": 0.1}
    other = Store(store.root.parent / "other")
    members = (Member("this", dataset, store), Member("other", _some(dataset, other), other))
    train(dataset, base, TrainingSettings.model_validate_json(json.dumps(joint)), None, members, workspace=store.workspace("joint"))
    weights = class_weights(ObjectiveSettings(class_weights={"b": 2.0}), Labelling("classification", ("a", "b"), 8), [Labelled((1,), (0,), (1,))])
    assert weights is not None
    for task, stated in (("classification", {"labels": ("a", "b")}), ("regression", {"centre": 1.0, "spread": 2.0})):
        assert fit_labelling([], task, 8, PrivacySettings.model_validate({"epsilon": 1.0} | stated)).stated  # type: ignore[arg-type]


def _some(dataset: Artifact, store: Store) -> Artifact:
    """Return a dataset of another project: some of the same records."""
    folder = store.root / "making"
    folder.mkdir(parents=True)
    write_records(folder / "part-train-00000.parquet", list(dataset_records(dataset, "train"))[:4])
    return store.commit("dataset", folder, parents=[], facts={"splits": {"train": 4}, "register": []})


def test_every_key_of_the_project_file_is_read_by_a_full_run(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with endpoint(_reply) as (url, _, _):
        _write(tmp_path / "project", base, url)
        _run_and_compare(load_project(tmp_path / "project"), base, monkeypatch)


def _reply(asked: str) -> str:
    """Write what the rules accept: an answer that the knowledge base holds, or a question in the language of the prompt."""
    chinese = detect(asked) == "zh"
    if asked.startswith(("Answer", "只根据")):
        return "蜂箱用木头做成。" if chinese else "A comb without varroa is made of wax."
    return "蜂箱是用什么做成的呢？" if chinese else "Of what is a comb without varroa made?"


def _run_and_compare(project: Project, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
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
    _sweep(project, base, outcome.dataset)
    _otherwise(base, outcome.dataset, project.store)
    torch.set_num_threads(threads)
    monkeypatch.undo()
    assert outcome.evaluation is not None
    assert outcome.decision is not None
    assert outcome.evidence is not None
    # What was added leads to its file as everything else does.
    assert {"data/elsewhere.txt", "data/knowledge/hives.md"} <= {entry["uri"] for entry in outcome.dataset.facts["register"]}
    documents = [json.loads(path.read_bytes()) for path in (outcome.evidence.path / "controls").glob("*.json")]
    (lineage,) = [document for document in documents if document["check"] == "lineage"]
    assert (lineage["measured"], lineage["faults"]) == (1.0, [])
    used = set(_inside(project.settings))
    assert ProjectSettings in used
    unread = sorted(f"{kind.__name__}.{name}" for kind in used for name in _with_a_choice(kind) if (kind.__name__, name) not in seen)
    assert not unread, " ".join(unread)
