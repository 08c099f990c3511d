"""Examples lie in columns on disk: what comes back is what went in, and what was tokenised once is found again until something that matters changes."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.digest import digest_file
from metier.kept import aside
from metier.models import Base, Chat, Encoded, load_tokenizer, resolve
from metier.progress import SILENT
from metier.records import Record, Source
from metier.training import TrainingSettings
from metier.training.batches import encode_records
from metier.training.curriculum import plan_steps
from metier.training.examples import GROUPS, Collector, Example, Examples, Labelled, Targets, read_examples
from metier.training.reading import examples_of
from metier.training.settings import BatchSettings, ValidationSettings
from metier.training.steps import Steps
from metier.training.tokenised import tokenised

MANY = 9000
"""More than two batches of the file."""

LABELLED: dict[Targets, list[Labelled]] = {
    "classes": [Labelled((5, 6, 7), (0, 2), (3, 1)), Labelled((9,), (0,), (0,))],
    "numbers": [Labelled((5, 6, 7), (2,), (0.1,), (0, 0, 1)), Labelled((4, 4), (1,), (-3.5,), (0, 1))],
    "rows": [Labelled((5, 6), (0,), ((1.0, 0.0, 1.0),)), Labelled((7, 8), (0,), ((0.0, 0.0, 0.0),))],
}


def record(number: int) -> Record:
    source = Source(uri=f"files/{number % 3}.jsonl", digest="d" * 64, position=str(number), licence="CC0-1.0")
    subject = f"person {number // 2}" if number % 2 else None
    return Record(id=f"{number:064x}", task=("问答", "letter")[number % 2], domain="bees", language=("zh", "en")[number % 2], source=source, subject=subject)


def encoded(number: int) -> Encoded:
    drawn = random.Random(number)
    count = drawn.randint(1, 9)
    return Encoded(tuple(drawn.randint(-3, 262_000) for _ in range(count)), tuple(drawn.random() < 0.5 for _ in range(count)))


def collect(items: list[Any], targets: Targets = "learn", path: Path | None = None) -> Examples:
    with Collector(targets, path) as found:
        for number, item in enumerate(items):
            found.take(record(number), item)
    return found.collected()


@pytest.mark.parametrize("where", ["memory", "file", "file read again"])
def test_what_comes_back_is_what_went_in(tmp_path: Path, where: str) -> None:
    items = [encoded(number) for number in range(MANY)]
    path = None if where == "memory" else tmp_path / "examples.arrow"
    found = collect(items, path=path)
    if where == "file read again":
        assert path is not None
        found = read_examples(path, [], widened=0, broken_up=0)
    assert list(found.examples) == items
    assert found.examples[-1] == items[-1]
    assert found.examples[4090:4100] == items[4090:4100]
    with pytest.raises(IndexError):
        found.examples[MANY]
    assert found.lengths.tolist() == [len(item) for item in items]
    assert found.learnt.tolist() == [sum(item.learn[1:]) for item in items]
    for place in (0, 1, 4095, 4096, MANY - 1):
        made, origin = record(place), found.origins[place]
        assert (origin.id, origin.task, origin.domain, origin.language, origin.person) == (made.id, made.task, made.domain, made.language, place % 2 == 1)
        assert made.source is not None
        assert origin.source == made.source.uri
        assert origin.unit == (made.subject or f"{'d' * 64} {place}")


@pytest.mark.parametrize("targets", list(LABELLED))
def test_texts_with_labels_come_back_with_their_kinds_of_targets(tmp_path: Path, targets: Targets) -> None:
    items: list[Example] = list(LABELLED[targets])
    found = collect(items, targets, tmp_path / "examples.arrow")
    assert list(found.examples) == items
    assert [type(target) for item in found.examples for target in item.targets] == [type(target) for item in items for target in item.targets]  # type: ignore[union-attr]
    assert found.learnt.tolist() == [len(item.targets) for item in items]  # type: ignore[union-attr]


def test_groups_and_descriptions_find_what_a_walk_over_all_would_find() -> None:
    found = collect([encoded(number) for number in range(MANY)])
    for name in GROUPS:
        counted = Counter(getattr(origin, name) for origin in found.origins)
        assert {value: len(places) for value, places in found.groups(name).items()} == counted
    wanted = {"task": ["问*"], "source": ["files/1.jsonl", "*/2.*"]}
    right = [place for place, origin in enumerate(found.origins) if origin.task == "问答" and origin.source != "files/0.jsonl"]
    assert found.fitting(wanted).tolist() == right
    assert found.fitting({}).tolist() == list(range(MANY))
    assert found.fitting({"domain": ["wasps"]}).tolist() == []
    assert len(Examples.none().fitting({"task": ["x"]})) == 0


def test_examples_behind_others_keep_their_places_and_groups() -> None:
    first, second = collect([encoded(number) for number in range(5)]), collect([encoded(number) for number in range(4200)])
    both = first.joined(second)
    assert list(both.examples) == [*first.examples, *second.examples]
    assert [origin.task for origin in both.origins] == [origin.task for origin in (*first.origins, *second.origins)]
    assert both.fitting({"task": ["letter"]}).tolist() == [place for place, origin in enumerate(both.origins) if origin.task == "letter"]


def test_steps_give_their_rows_back() -> None:
    steps = [((1, 2), (3,)), (), ((4,), (5, 6, 7))]
    found = Steps(steps)
    assert list(found) == steps
    assert found[-1] == steps[-1]
    assert found[:2] == steps[:2]
    assert list(found.rows) == [(1, 2), (3,), (4,), (5, 6, 7)]
    assert list(found.places) == [1, 2, 3, 4, 5, 6, 7]
    assert found == Steps(steps)
    assert found != Steps(steps[:2])


def test_a_plan_takes_bytes_for_each_example_and_not_objects() -> None:
    found = collect([encoded(number) for number in range(MANY)])
    plan = plan_steps(found, TrainingSettings(epochs=2.0, batch=BatchSettings(row_tokens=64, rows=4)))
    counted = np.bincount(np.asarray(plan.steps.places))
    assert counted.tolist() == [2] * MANY
    held = sum(part.itemsize * len(part) for part in (plan.steps._places, plan.steps._rows, plan.steps._steps))
    assert held < 12 * len(plan.steps.places)


SETTINGS = TrainingSettings(batch=BatchSettings(row_tokens=128, maximum_tokens=128), validation=ValidationSettings(limit=3))


@pytest.fixture
def dataset(make_dataset: MakeDataset, base: Base) -> Artifact:
    rows = [conversation(f"第{number}箱有几张子脾？", f"{number} frames") for number in range(8)]
    long = conversation("长 " * 400, "是")
    return make_dataset(
        train=[*rows, long, conversation(f"{load_tokenizer(base).eos_token}？", "是")],
        validation=[conversation(f"How many in hive {number}?", "three") for number in range(5)],
    )


def read(dataset: Artifact, base: Base, kept: Path, settings: TrainingSettings = SETTINGS) -> tuple[Examples, Examples]:
    return examples_of(dataset, base, Chat(load_tokenizer(base)), settings, kept=kept, progress=SILENT)


def all_of(found: Examples) -> Any:
    return list(found.examples), list(found.origins), list(found.drops), found.broken_up


def test_what_was_tokenised_is_found_again_with_its_drops(dataset: Artifact, base: Base, tmp_path: Path) -> None:
    kept = tmp_path / "tokens"
    taught, checks = read(dataset, base, kept)
    assert len(checks) == 3
    assert [drop.reason.split(":")[0] for drop in taught.drops] == ["too_many_tokens"]
    assert taught.broken_up == 1
    straight = encode_records([], Chat(load_tokenizer(base)), 128)
    assert len(straight) == 0
    written = {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.is_file()}
    again, checks_again = read(dataset, base, kept)
    assert all_of(again) == all_of(taught)
    assert all_of(checks_again) == all_of(checks)
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.is_file()} == written


def test_what_another_process_made_meanwhile_is_left_where_it_reads_it(base: Base, tmp_path: Path) -> None:
    def make(path: Path | None) -> Examples:
        return encode_records([conversation("谁？", "我")], Chat(load_tokenizer(base)), 128, path=path)

    def slowly(path: Path | None) -> Examples:
        tokenised(tmp_path, base, {"split": "train"}, make)
        (made,) = (folder for folder in tmp_path.iterdir() if not folder.name.startswith("."))
        seen.append(made.stat().st_ino)
        return make(path)

    seen: list[int] = []
    assert len(tokenised(tmp_path, base, {"split": "train"}, slowly)) == 1
    assert [path.stat().st_ino for path in tmp_path.iterdir()] == seen


@pytest.mark.parametrize("change", ["maximum", "tokenizer", "template", "limit", "damage", "torn"])
def test_what_was_tokenised_otherwise_is_not_taken(dataset: Artifact, base: Base, tmp_path: Path, change: str) -> None:
    kept = tmp_path / "tokens"
    taught = read(dataset, base, kept)[0]
    before = [all_of(found) for found in read(dataset, base, kept)]
    if change == "maximum":
        other = read(dataset, base, kept, SETTINGS.model_copy(update={"batch": BatchSettings(row_tokens=2048, maximum_tokens=2048)}))
        assert len(other[0]) == len(taught) + 1
    elif change == "limit":
        other = read(dataset, base, kept, SETTINGS.model_copy(update={"validation": ValidationSettings(limit=4)}))
        assert (len(other[0]), len(other[1])) == (len(taught), 4)
    elif change in {"tokenizer", "template"}:
        folder = tmp_path / "other"
        shutil.copytree(base.folder, folder)
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
        if change == "template":
            config["chat_template"] = Chat(load_tokenizer(base)).tokenizer.chat_template.replace("User:", "Q:")
        else:
            config["bos_token"] = config["eos_token"]
        (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        other = read(dataset, replace(resolve(str(folder), root=folder), name=base.name), kept)
        assert list(other[0].examples) != list(taught.examples)
    else:
        for path in kept.rglob("examples.arrow"):
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 255
            # Not written in place: what is mapped must not get shorter.
            path.unlink()
            path.write_bytes(bytes(data) if change == "damage" else bytes(data[: len(data) // 2]))
        assert [all_of(found) for found in read(dataset, base, kept)] == before


def test_what_was_used_longest_ago_is_removed(dataset: Artifact, base: Base, tmp_path: Path) -> None:
    kept = tmp_path / "tokens"
    for maximum in range(100, 112):
        taught, _ = read(dataset, base, kept, SETTINGS.model_copy(update={"batch": BatchSettings(row_tokens=128, maximum_tokens=maximum)}))
    assert len(list(kept.iterdir())) == 8
    assert len(list(taught.examples)) == len(taught), "what is open stays readable"


def test_what_is_written_is_hashed_on_its_way_and_not_read_again(dataset: Artifact, base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_again: list[Path] = []

    def digest(path: Path) -> str:
        read_again.append(path)
        return digest_file(path)

    tokenised_once = importlib.import_module("metier.training.tokenised")
    tokenised_once._tokenizer.cache_clear()
    monkeypatch.setattr(tokenised_once, "digest_file", digest)
    taught, _ = read(dataset, base, tmp_path / "tokens")
    assert [path for path in read_again if path.name == "examples.arrow"] == []
    for facts in (tmp_path / "tokens").glob("*/facts.json"):
        assert json.loads(facts.read_bytes())["sha256"] == digest_file(facts.with_name("examples.arrow"))
    assert all_of(read(dataset, base, tmp_path / "tokens")[0]) == all_of(taught)
    assert len([path for path in read_again if path.name == "examples.arrow"]) == 2


def test_what_a_killed_process_was_writing_is_cleared_after_a_day_and_not_before(tmp_path: Path) -> None:
    day = 24 * 3600
    for name, age in ((".writing-old", day + 60), (".writing-new", day - 60), *((f"k{number}", day * number) for number in range(5))):
        (tmp_path / name / "inside").mkdir(parents=True)
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with pytest.raises(KeyError), aside(tmp_path, "new", kept=3) as folder:
        raise KeyError(folder.name)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-new", "k0", "k1"]
    with aside(tmp_path, "new", kept=3) as folder:
        folder.rename(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-new", "k0", "k1", "new"]
