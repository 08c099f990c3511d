"""Weights shared out over processes: whole trainings give what one process gives, are handed in alike, and go on in any number of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import MakeDataset, conversation
from metier.errors import ConfigError
from metier.models import Base
from metier.models.methods import METHODS
from metier.models.saved import stream_tensors
from metier.progress import Silent
from metier.project import load_project
from metier.records import Record, Span, identify
from metier.store import Store
from metier.training import TrainingSettings, unshared
from metier.training.effective import read_later
from metier.training.support import UNSHARED
from training.test_processes import free_port

SCRIPT = Path(__file__).with_name("several_trainings.py")
COMMON: dict[str, Any] = {
    "precision": "float32",
    "learning_rate": 3e-3,
    "epochs": 2,
    "batch": {"row_tokens": 96, "rows": 3, "maximum_tokens": 96},
    "validation": {"times": 3},
    "checkpoint": {"steps": 2},
    "monitor": {"every": 2},
}


def told(task: str, count: int) -> list[Record]:
    rows = [replace(conversation(f"{task}第{number}号在哪里？", f"{number}在{'左右'[number % 2]}边"), task=task) for number in range(count)]
    return [replace(row, id=identify(row)) for row in rows]


def labelled(count: int) -> list[Record]:
    colors = ("red", "green", "blue")
    texts = [(f"Lamp {number} is {colors[number % 3]} in here.", colors[number % 3]) for number in range(count)]
    rows = [Record(id="", text=text, label=color, spans=(Span(text.index(color), text.index(color) + len(color), "Color", color),)) for text, color in texts]
    return [replace(row, id=identify(row)) for row in rows]


@pytest.fixture
def cases(make_dataset: MakeDataset, base: Base, encoder: Base) -> dict[str, Any]:
    """Trainings of both kinds of model, of answers and of labels, with what needs care: stages, replay, a base model at hand, bf16, a score."""
    talks = make_dataset(train=[*told("book", 12), *told("talk", 8), *told("replay", 6)], validation=told("book", 14)[12:])
    labels = make_dataset(train=labelled(24), validation=labelled(30)[24:])
    stages = [{"name": "books", "records": {"task": ["book"]}}, {"name": "talks", "records": {"task": ["talk"]}, "objectives": {"kl": 0.3}}]
    without = {key: value for key, value in COMMON.items() if key != "epochs"}
    answers: dict[str, Any] = {
        "full in stages": without | {"method": "full", "stages": stages, "replay": {"share": 0.2}},
        "lora in bf16": COMMON | {"precision": "bfloat16", "adaptation": {"rank": 3, "dropout": 0.1, "allocate": "sensitivity"}},
    }
    of_labels: dict[str, Any] = {
        "decoder": COMMON | {"task": "classification", "adaptation": {"rank": 3}},
        "encoder": COMMON | {"task": "tagging", "validation": {"times": 3, "by": "score", "patience": 3}},
    }
    found = {name: {"dataset": talks.digest, "base": str(base.folder), "settings": settings} for name, settings in answers.items()}
    return found | {
        name: {"dataset": labels.digest, "base": str((encoder if name == "encoder" else base).folder), "settings": settings}
        for name, settings in of_labels.items()
    }


@pytest.fixture
def further(make_dataset: MakeDataset, base: Base, encoder: Base) -> dict[str, Any]:
    """Tasks and settings that the other trainings leave out."""
    talks = make_dataset(train=told("book", 12), validation=told("book", 14)[12:])
    common = COMMON | {"epochs": 1, "validation": {"times": 6, "patience": 1}}
    written = common | {"replay": {"share": 0.2, "written": 2, "max_new_tokens": 8}, "objectives": {"kl": 0.1}, "method": "prefix"}
    found = {"written": {"dataset": talks.digest, "base": str(base.folder), "settings": written}}
    rows = labelled(30)
    for task, records, more in (
        ("multi-label", [replace(row, metadata={"labels": [str(row.label), "lamp"][: 1 + place % 2]}) for place, row in enumerate(rows)], "balanced"),
        ("regression", [replace(row, label=str(len(row.text) + place % 7)) for place, row in enumerate(rows)], None),
        ("pair", [replace(row, metadata={"pair": f"A {row.label} lamp"}, label=str(place % 2)) for place, row in enumerate(rows)], None),
    ):
        settings = common | {"task": task} | ({"objectives": {"class_weights": more}} if more else {})
        found[task] = {"dataset": make_dataset(train=records[:24], validation=records[24:]).digest, "base": str(encoder.folder), "settings": settings}
    return found


def run(store: Store, cases: Mapping[str, Any], how: str, processes: int, *, stop: int = 0, apart: str = "") -> dict[str, Any]:
    """Train every case in so many processes and return the digests of run and adapter by its name."""
    given, out, port = store.root / "cases.json", store.root / "left.json", str(free_port())
    given.write_text(json.dumps(cases))
    started = []
    for rank in range(processes):
        joined = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = os.environ | ({**joined, "ACCELERATE_USE_CPU": "true"} if processes > 1 else {})
        arguments = [str(SCRIPT), str(store.root), str(given), str(out), how, str(stop), apart]
        started.append(subprocess.Popen([sys.executable, *arguments], env=environment))
    assert [process.wait(timeout=300) for process in started] == [0] * processes
    return dict(json.loads(out.read_text()))


def rows(store: Store, digests: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in store.open("run", digests[0]).file("metrics.jsonl").read_text().splitlines()]


def same(store: Store, one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Check losses to 1e-5, and that the experts have the same files, tensors and numbers."""
    assert one.keys() == other.keys()
    for name in one:
        left, right = rows(store, one[name]), rows(store, other[name])
        for key in ("step", "loss", "validation_loss", "validation_score", "gradient_norm"):
            assert [row.get(key) for row in left] == pytest.approx([row.get(key) for row in right], abs=1e-5 if key != "gradient_norm" else 1e-3), (name, key)
        folders = [store.open("adapter", found[name][1]).path for found in (one, other)]
        files = [sorted(path.name for path in folder.iterdir()) for folder in folders]
        assert files[0] == files[1], name
        for file in files[0]:
            if file.endswith(".safetensors"):
                tensors = [load_file(folder / file) for folder in folders]
                assert tensors[0].keys() == tensors[1].keys()
                for part, tensor in tensors[0].items():
                    assert tensor.dtype == tensors[1][part].dtype
                    torch.testing.assert_close(tensor, tensors[1][part], atol=1e-3, rtol=1e-3)
            elif file != "manifest.json":
                assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes(), (name, file)


def test_whole_trainings_are_those_of_one_process_and_go_on_in_any_number(store: Store, cases: dict[str, Any]) -> None:
    alone = run(store, cases, "replicated", 1, apart="-alone")
    same(store, alone, run(store, cases, "sharded", 2, apart="-sharded"))
    assert {name: store.open("run", found[0]).facts["environment"]["distribution"] for name, found in alone.items()} == dict.fromkeys(cases, "replicated")
    # Stopped while sharded, stopped again while replicated, ended by three.
    assert run(store, cases, "sharded", 2, stop=3) == {}
    assert run(store, cases, "replicated", 1, stop=3) == {}
    same(store, alone, run(store, cases, "sharded", 3))


def test_every_other_task_and_what_the_base_model_writes_are_learnt_alike(store: Store, further: dict[str, Any]) -> None:
    same(store, run(store, further, "replicated", 1, apart="-alone"), run(store, further, "sharded", 2, apart="-sharded"))


def test_a_file_written_tensor_by_tensor_is_that_of_safetensors(tmp_path: Path) -> None:
    tensors = {
        "b": torch.arange(6.0).view(2, 3),
        "a": torch.ones(3, dtype=torch.bfloat16),
        "step": torch.tensor(3.0),
        "none": torch.empty(0, 4),
        "random": torch.arange(5, dtype=torch.uint8),
    }
    stream_tensors(tmp_path / "ours", tensors, lambda tensor: tensor)
    save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("item", UNSHARED, ids=lambda item: item.key)
def test_what_needs_whole_weights_is_refused_by_the_project_file(tmp_path: Path, item: Any) -> None:
    asking = {
        **{f"training.method: {name}": {"method": name} for name, facts in METHODS.items() if not facts.shards},
        "training.objectives.ewc": {"stages": [{"name": "one", "objectives": {"ewc": 1.0}}]},
        "training.objectives.start": {"objectives": {"start": 0.1}},
        "training.adaptation.joint": {"adaptation": {"joint": {"projects": ["../other"]}}},
        "training.validation.tasks": {"validation": {"by": "score", "tasks": ["triage"]}},
        "training.privacy.epsilon": {"privacy": {"epsilon": 8.0}, "validation": {"times": 0}},
    }[item.key]
    settings = TrainingSettings.model_validate_json(json.dumps(asking))
    assert len(unshared(settings)) == 1
    for distribution in ("replicated", "sharded"):
        text = {"metier": 1, "project": "a", "pack": "example", "sources": [{"path": "a.jsonl", "licence": "CC0-1.0"}], "training": asking}
        (tmp_path / "metier.yaml").write_text(json.dumps(text | {"engine": {"distribution": distribution}}))
        if distribution == "replicated":
            load_project(tmp_path)
            continue
        with pytest.raises(ConfigError, match="does not go with") as refused:
            load_project(tmp_path)
        assert item.key in str(refused.value)
        assert item.instead in str(refused.value)


def test_of_labels_what_is_advised_instead_can_be_had() -> None:
    (said,) = unshared(TrainingSettings.model_validate({"task": "classification", "objectives": {"start": 0.1}}))
    assert said.endswith("-> write engine.distribution: replicated")


class _Notes(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "full"}, ""),
        ({"method": "dora", "replay": {"share": 0.1}}, ""),
        ({"method": "prompt"}, "training.method: prompt"),
        ({"adaptation": {"allocate": "sensitivity"}}, "allocate: sensitivity"),
        ({"replay": {"share": 0.1, "written": 4}}, "training.replay.written"),
    ],
)
def test_weights_are_read_share_by_share_unless_the_base_model_has_to_work_first(
    given: dict[str, Any], said: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = _Notes()
    workspace = store.workspace("later", notes)
    settings = TrainingSettings.model_validate(given)
    assert not read_later(settings, workspace, sharded=True), "one process has room for all, or for nothing"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not read_later(settings, workspace, sharded=False)
    assert notes.said == []
    assert read_later(settings, workspace, sharded=True) == (not said)
    assert [said in note and "loads the whole base model" in note for note in notes.said] == [True] * bool(said)


def test_whatever_else_a_method_is_given_goes_with_shared_out_weights() -> None:
    for method, facts in METHODS.items():
        assert bool(unshared(TrainingSettings(method=method))) != facts.shards
