"""The whole path for labels and spans, from a project file to a decision, by the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.conftest import Invoke
from cli.hives import rows
from cli.test_cli_serve import serving
from metier.models import Base, Labeller
from metier.project import load_project
from metier.shards import dataset_records

FLOWERS = ("rape", "acacia", "heather", "loquat", "lime", "clover", "油菜", "洋槐", "荆条", "枇杷", "荔枝", "椴树")
SEASONS = {"spring": "春", "summer": "夏", "autumn": "秋", "winter": "冬"}


def marks(text: str) -> list[dict[str, Any]]:
    """Return the places of flowers in a note."""
    found = [(text.index(flower, start), flower) for flower in FLOWERS for start in range(len(text)) if text.startswith(flower, start)]
    return [{"start": place, "end": place + len(flower), "type": "Flower", "text": flower} for place, flower in sorted(set(found))]


def sentence(text: str) -> str:
    """Return a note as a word a line with its tag, each Han character a word."""
    from metier.models.words import words

    lines = []
    for start, end in words(text):
        inside = next((mark for mark in marks(text) if mark["start"] <= start < mark["end"]), None)
        lines.append(f"{text[start:end]}\t{'O' if inside is None else ('B' if inside['start'] == start else 'I') + '-Flower'}")
    return "\n".join(lines)


def project(folder: Path, base: Base, task: str, source: str, columns: dict[str, str], **training: Any) -> Path:
    """Write a project on the tiny encoder and return its folder."""
    settings = {
        "metier": 1,
        "project": "hives",
        "pack": "example",
        "base": str(base.folder),
        "sources": [{"path": f"data/{source}", "licence": "CC0-1.0", "columns": columns}],
        "training": {"task": task, "epochs": 6, "learning_rate": 0.003, "precision": "float32", "validation": {"times": 1}, **training},
        "evaluation": {"tasks": ["held-out"], "resamples": 100, "examples": 2},
    }
    (folder / "metier.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


@pytest.fixture
def notes(tmp_path: Path) -> list[dict[str, Any]]:
    (tmp_path / "data").mkdir()
    found = []
    for number, row in enumerate(rows(120)):
        text = str(row["note"])
        season = next(name for name, sign in SEASONS.items() if row["season"] in (name, sign))
        found.append({"text": text, "season": season, "marks": marks(text), "frames": row["frames"], "also": ["even"] if number % 2 else []})
        found[-1]["also"].append("early" if season in ("spring", "summer") else "late")
        found[-1]["other"] = season if number % 3 else "nothing"
        found[-1]["fits"] = number % 3 != 0
    (tmp_path / "data" / "notes.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return found


def test_tagged_words_become_an_expert_with_a_report_and_a_decision(notes: list[dict[str, Any]], tmp_path: Path, encoder: Base, invoke: Invoke) -> None:
    (tmp_path / "data" / "notes.conll").write_text("\n\n".join(sentence(row["text"]) for row in notes) + "\n", encoding="utf-8")
    folder = project(tmp_path, encoder, "tagging", "notes.conll", {}, epochs=12)
    ended = invoke("run", folder, "--json")
    assert ended.code == 0, ended.err
    row = ended.document["evaluation"]["tasks"]["tagging"]["entity_f1"]
    assert row["base"]["value"] == 0.0
    assert row["tuned"]["value"] > 0.7
    assert row["tuned"]["low"] > 0.5
    decision = ended.document["decision"]["controls"]
    assert decision
    loaded = load_project(folder)
    evaluation = loaded.store.newest("evaluation")
    adapter = loaded.store.newest("adapter")
    assert evaluation is not None
    assert adapter is not None
    assert evaluation.facts["tables"]["entity"]["Flower"]["support"] == row["n"] * 2
    # The words of the files stand in the report's table and on the terminal.
    shown = invoke("run", folder)
    assert "every class, entity level" in shown.out
    assert "micro average" in shown.out
    dataset = loaded.store.newest("dataset")
    assert dataset is not None
    records = list(dataset_records(dataset, "test"))
    assert {record.language for record in records} == {"zh", "en"}
    answers = Labeller.open(encoder, adapter.path).predict([record.text for record in records])
    assert sum(answer.spans == record.spans for answer, record in zip(answers, records, strict=True)) > 0.4 * len(records)
    asked = invoke("chat", folder, "--question", "hello")
    assert asked.code == 2
    assert "cannot be talked to" in asked.err


@pytest.mark.parametrize(
    ("task", "columns", "metric", "training"),
    [
        ("tagging", {"text": "text", "spans": "marks"}, "entity_f1", {"method": "lora", "adaptation": {"rank": 8}, "learning_rate": 0.01, "epochs": 20}),
        ("classification", {"text": "text", "label": "season"}, "macro_f1", {"epochs": 40}),
        ("multi-label", {"text": "text", "labels": "also"}, "micro_f1", {}),
        ("regression", {"text": "text", "label": "frames"}, "mae", {"epochs": 1}),
        ("pair", {"text": "text", "pair": "other", "label": "fits"}, "roc_auc", {}),
    ],
)
def test_columns_of_labels_become_an_expert(
    task: str, columns: dict[str, str], metric: str, training: dict[str, Any], notes: list[dict[str, Any]], tmp_path: Path, encoder: Base, invoke: Invoke
) -> None:
    assert notes
    ended = invoke("evaluate", project(tmp_path, encoder, task, "notes.jsonl", columns, **training), "--json")
    assert ended.code == 0, ended.err
    row = ended.document["evaluation"]["tasks"][task][metric]
    if metric == "mae":
        assert row["tuned"]["value"] < 3.5
    else:
        assert row["tuned"]["value"] > row["base"]["value"] + 0.1
    assert row["n"] >= 10
    written = invoke("export", tmp_path, "--format", "merged", "--out", tmp_path / "out", "--unreleased")
    assert written.code == 0, written.err
    assert "nobody has released this expert" in written.err
    assert "largest" in written.out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"][0].endswith("Classification")


def test_a_released_labeller_is_served_and_one_that_nobody_released_is_not(notes: list[dict[str, Any]], tmp_path: Path, encoder: Base, invoke: Invoke) -> None:
    sizes = {"method": "adapter", "adaptation": {"size": 8}, "learning_rate": 0.01, "epochs": 12}
    folder = project(tmp_path, encoder, "tagging", "notes.jsonl", {"text": "text", "spans": "marks"}, **sizes)
    ended = invoke("run", folder, "--json")
    assert ended.code == 0, ended.err
    ungated = invoke("serve", folder)
    assert (ungated.code, "-> make one with: metier release" in ungated.err) == (2, True)
    controls = invoke("comply", folder, "--json").document["decision"]["controls"]
    flags = [word for name, entry in controls.items() if entry["blocks"] and name != "SX-01" for word in ("--control", name)]
    for arguments in (["approve", folder, "--by", "Zhang Wei", *flags], ["release", folder, "--name", "flowers"]):
        ended = invoke(*arguments)
        assert ended.code == 0, ended.err
    key = invoke("keys", "new", folder, "--name", "tester").out.strip()
    texts = [row["text"] for row in notes[:6]]
    with serving(folder, key) as client:
        found = client.post("/v1/spans", json={"model": "flowers", "input": texts})
        assert found.status_code == 200, found.text
        wrong = client.post("/v1/chat/completions", json={"model": "flowers", "messages": [{"role": "user", "content": texts[0]}]})
        assert (wrong.status_code, "POST /v1/spans" in wrong.json()["error"]["message"]) == (400, True)
    adapter = load_project(folder).store.newest("adapter")
    assert adapter is not None
    expected = Labeller.open(encoder, adapter.path).predict(texts)
    said = [[(span["type"], span["start"], span["end"]) for span in item["spans"]] for item in found.json()["data"]]
    assert said == [[(span.type, span.start, span.end) for span in item.spans] for item in expected]
    assert sum(map(len, said)) > 3
    verified = invoke("audit", "verify", folder)
    assert verified.code == 0, verified.err


def test_overlapping_spans_end_the_run_with_the_record_and_no_traceback(notes: list[dict[str, Any]], tmp_path: Path, encoder: Base, invoke: Invoke) -> None:
    for row in notes:
        first = row["marks"][0]
        row["marks"].append({"start": first["start"], "end": first["end"] + 1, "type": "Wider"})
    (tmp_path / "data" / "notes.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in notes), encoding="utf-8")
    ended = invoke("run", project(tmp_path, encoder, "tagging", "notes.jsonl", {"text": "text", "spans": "marks"}))
    assert ended.code == 2
    assert "lies inside Wider" in ended.err
    assert "data/notes.jsonl" in ended.err
    assert "Traceback" not in ended.err
