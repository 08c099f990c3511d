"""Several datasets, one course: each gets the shared part and its own, whoever trains first, whatever interrupts it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from rich.console import Console
from safetensors.torch import load_file

from conftest import conversation
from metier.artifacts import Artifact
from metier.cli.planned import show_plan
from metier.errors import InputError
from metier.models import Base, Chat, LocalModel, load_tokenizer
from metier.progress import SILENT
from metier.records import Record
from metier.shards import read_drops, write_records
from metier.store import Store
from metier.training import Member, TrainingSettings, train
from metier.training import parts as parts_of
from metier.training.curriculum import plan_steps
from metier.training.members import examples_together
from metier.training.planning import Aims, Ask, advise
from metier.training.planning.methods import method_of, trainable_parameters
from metier.training.planning.shape import read_shape
from metier.training.trainer import Trainer

PLACES = (("红", "左边"), ("绿", "右边"))
CHINESE = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}", language="zh") for color, place in PLACES for thing in "书笔灯门窗桌椅车"]
ENGLISH = [conversation(f"Where is the {thing}?", f"The {thing} is {place}") for thing in ("cup", "pen", "key") for place in ("here", "there")]
SETTINGS = TrainingSettings.model_validate(
    {
        "adaptation": {"rank": 4, "joint": {"projects": ("../other",), "rank": 2}},
        "epochs": 3.0,
        "learning_rate": 5e-3,
        "precision": "float32",
        "batch": {"row_tokens": 128, "rows": 2, "maximum_tokens": 128},
        "validation": {"times": 2, "limit": 4},
        "checkpoint": {"steps": 1},
    }
)
ENTRY = {"uri": "data/a.csv", "sha256": "0" * 64, "rows": 6, "licence": "CC-BY-4.0", "basis": "published", "malformed": 0}


def member(folder: Path, name: str, records: list[Record], held: int = 2) -> Member:
    store, making = Store(folder / name / ".metier"), folder / "making"
    making.mkdir(parents=True)
    write_records(making / "part-train-00000.parquet", records[held:])
    write_records(making / "part-validation-00000.parquet", records[:held])
    facts = {"splits": {"train": len(records) - held, "validation": held}, "register": [ENTRY]}
    return Member(name, store.commit("dataset", making, parents=[], facts=facts), store)


Pair = tuple[Member, Member]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return member(tmp_path, "english", ENGLISH), member(tmp_path, "chinese", CHINESE)


def trained(own: Member, members: Pair, base: Base, settings: TrainingSettings = SETTINGS) -> tuple[Artifact, Artifact]:
    return train(own.dataset, base, settings, None, members, workspace=own.store.workspace("joint"))


def weights(adapter: Artifact) -> dict[str, torch.Tensor]:
    return load_file(adapter.file("adapter_model.safetensors"))


def same(one: Artifact, other: Artifact) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def rows_of(run: Artifact) -> list[dict[str, object]]:
    return [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]


def test_each_gets_one_adapter_of_shared_and_own_and_the_run_says_whose_data_it_was(pair: Pair, base: Base) -> None:
    english, chinese = pair
    run, adapter = trained(english, pair, base)
    assert (adapter.facts["rank"], adapter.facts["alpha"]) == (6, 12.0)
    assert adapter.parents == (run.digest, english.dataset.digest, base.digest)
    joint = run.facts["joint"]
    assert (joint["members"], joint["trained_by"], joint["examples"]) == (["chinese", "english"], "english", 4)
    assert (joint["shared_rank"], joint["own_rank"]) == (4, 2)
    assert adapter.facts["trainable_parameters"] == run.facts["trainable_parameters"] == joint["trainable_parameters"] * 6 / 8
    (companion,) = run.facts["companions"]
    assert (companion["project"], companion["dataset"], companion["examples"]) == ("chinese", chinese.dataset.digest, 14)
    assert companion["sources"] == [{name: ENTRY[name] for name in ("uri", "sha256", "rows", "licence", "basis")}]
    measured = [row for row in rows_of(run) if "validation_loss" in row]
    assert len(measured) == 2
    for row in measured:
        assert row["validation_loss"] == pytest.approx(sum(row["validation_by_member"]) / 2)
    best = next(row for row in measured if row["step"] == run.facts["best_step"])
    assert [companion["validation_loss"], run.facts["validation_loss"]] == best["validation_by_member"]
    assert run.facts["joint"]["validation_loss"] == best["validation_loss"]
    assert LocalModel.open(base, adapter.path, dtype=torch.float32)
    assert run.facts["flops"] > 0
    assert joint["trainable_parameters"] == trainable_parameters(read_shape(base.folder), method_of(SETTINGS, 18)), "what a plan counts"


def test_the_second_takes_its_part_without_training(pair: Pair, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    english, chinese = pair
    first, adapter = trained(english, pair, base)
    monkeypatch.setattr(Trainer, "run", lambda _: pytest.fail("it trained"))
    run, other = trained(chinese, (chinese, english), base)
    assert run.facts["joint"]["trained_by"] == "english"
    assert run.facts["companions"][0]["project"] == "english"
    assert other.parents == (run.digest, chinese.dataset.digest, base.digest)
    mine, theirs = weights(adapter), weights(other)
    for name, tensor in mine.items():
        shared, own = ((slice(0, 4),), (slice(4, 6),)) if "lora_A" in name else ((slice(None), slice(0, 4)), (slice(None), slice(4, 6)))
        assert torch.equal(tensor[shared], theirs[name][shared])
        assert not torch.equal(tensor[own], theirs[name][own])
    assert run.file("metrics.jsonl").read_bytes() == first.file("metrics.jsonl").read_bytes()


def test_whoever_trains_first_the_numbers_are_the_same(tmp_path: Path, base: Base) -> None:
    one = member(tmp_path / "1", "english", ENGLISH), member(tmp_path / "1", "chinese", CHINESE)
    two = member(tmp_path / "2", "english", ENGLISH), member(tmp_path / "2", "chinese", CHINESE)
    found = [trained(one[0], one, base)[1], trained(one[1], one, base)[1]]
    turned = [trained(two[1], two[::-1], base)[1], trained(two[0], two[::-1], base)[1]]
    assert same(found[0], turned[1])
    assert same(found[1], turned[0])


def test_damaged_or_other_parts_are_trained_again(pair: Pair, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    english, chinese = pair
    trained(english, pair, base)
    began: list[int] = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: (began.append(1), run(self))[1])
    (file,) = (english.store.root / "joint").glob("*/parts.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    trained(chinese, pair, base)
    assert began == [1]
    changed = SETTINGS.model_copy(update={"seed": 1})
    trained(chinese, pair, base, changed)
    assert began == [1, 1]
    elsewhere = SETTINGS.model_copy(update={"adaptation": SETTINGS.adaptation.model_copy(update={"joint": replaced(projects=("../elsewhere/english",))})})
    trained(chinese, pair, base, elsewhere)
    assert began == [1, 1], "where a project lies changes nothing"


def replaced(**changes: object) -> object:
    return SETTINGS.adaptation.joint.model_copy(update=changes)


def test_only_the_last_few_are_kept(pair: Pair, base: Base) -> None:
    for seed in range(6):
        trained(pair[0], pair, base, SETTINGS.model_copy(update={"seed": seed, "epochs": 0.5}))
    assert len(list((pair[0].store.root / "joint").iterdir())) == parts_of._KEPT


def test_an_interrupted_training_goes_on_with_the_same_numbers(tmp_path: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = member(tmp_path / "1", "english", ENGLISH), member(tmp_path / "1", "chinese", CHINESE)
    stopped = member(tmp_path / "2", "english", ENGLISH), member(tmp_path / "2", "chinese", CHINESE)
    settings = SETTINGS.model_copy(update={"adaptation": SETTINGS.adaptation.model_copy(update={"dropout": 0.1})})
    run, adapter = trained(straight[0], straight, base, settings)
    save = Trainer._save

    def stop(self: Trainer) -> None:
        save(self)
        if self.position.step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        trained(stopped[0], stopped, base, settings)
    monkeypatch.setattr(Trainer, "_save", save)
    again, other = trained(stopped[0], stopped, base, settings)
    assert [row["loss"] for row in rows_of(again)] == [row["loss"] for row in rows_of(run)]
    assert same(adapter, other)


@pytest.mark.parametrize(("alpha", "share"), [(1.0, 14 / 18), (0.5, 0.652), (0.0, 0.5)])
def test_each_is_seen_in_proportion_to_its_size_to_the_power_alpha(pair: Pair, base: Base, alpha: float, share: float) -> None:
    settings = SETTINGS.model_copy(update={"epochs": 40.0, "adaptation": SETTINGS.adaptation.model_copy(update={"joint": replaced(alpha=alpha)})})
    taught, checks = examples_together((pair[1], pair[0]), base, Chat(load_tokenizer(base)), settings, SILENT)
    assert (taught.members, checks.members) == ((14, 4), (2, 2))
    assert [taught.origins[place].language for place in (0, 13, 14)] == ["zh", "zh", "en"]
    seen = [taught.member_of(place) for place in plan_steps(taught, settings).steps.places]
    assert seen.count(0) / len(seen) == pytest.approx(share, abs=0.01)


def test_a_run_leaves_its_own_dropped_records_in_its_ledger(tmp_path: Path, base: Base) -> None:
    long = conversation("词" * 300, "长", language="zh")
    both = member(tmp_path, "english", ENGLISH), member(tmp_path, "chinese", [*CHINESE, long])
    run, _ = trained(both[0], both, base)
    other, _ = trained(both[1], both, base)
    assert (run.facts["dropped"], other.facts["dropped"]) == (0, 1)
    assert [drop.record_id for drop in read_drops(other.file("drops.parquet"))] == [long.id]


def test_a_member_without_validation_examples_is_not_measured(tmp_path: Path, base: Base) -> None:
    both = member(tmp_path, "english", ENGLISH, held=0), member(tmp_path, "chinese", CHINESE)
    run, _ = trained(both[0], both, base)
    assert run.facts["validation_loss"] is None
    measured = [row for row in rows_of(run) if "validation_loss" in row]
    assert all(row["validation_by_member"] == [row["validation_loss"], None] for row in measured)


def test_members_that_cannot_be_are_refused(pair: Pair, base: Base, tmp_path: Path) -> None:
    english, chinese = pair
    with pytest.raises(InputError, match="english and french have the same data"):
        trained(english, (english, Member("french", english.dataset, chinese.store)), base)
    with pytest.raises(InputError, match="datasets of these were not given"):
        train(english.dataset, base, SETTINGS, workspace=english.store.workspace("alone"))
    empty = member(tmp_path, "empty", [conversation("x" * 600, "y")], held=0)
    with pytest.raises(InputError, match="the project empty: there is no example to train on"):
        trained(english, (english, empty), base)


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"method": "dora"}, "does not use adaptation.joint\n    -> take it out, or choose a method that does: lora, rslora"),
    ({"task": "classification"}, "task: labels have heads"),
    ({"privacy": {"epsilon": 3.0}, "validation": {"times": 0}}, "privacy.epsilon: .*by itself"),
    ({"stages": ({"name": "one"},)}, "stages: .*joint.alpha"),
    ({"batch": {"order": "dataset"}}, "batch.order: .*shuffled"),
    ({"replay": {"share": 0.1, "written": 3}}, "replay.written: .*replay.share"),
    ({"objectives": {"ewc": 1.0}, "replay": {"share": 0.1}}, "objectives.ewc: .*objectives.kl"),
    ({"objectives": {"start": 1.0}}, "objectives.start: .*objectives.kl"),
]


@pytest.mark.parametrize(("given", "said"), REFUSED, ids=[next(iter(given)) for given, _ in REFUSED])
def test_what_does_not_go_together_is_refused_with_what_does(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainingSettings.model_validate({"adaptation": {"joint": {"projects": ("../other",)}}, **given})


def test_a_key_that_nothing_reads_is_refused() -> None:
    with pytest.raises(ValidationError, match="no projects to train together with"):
        TrainingSettings.model_validate({"adaptation": {"joint": {"rank": 4}}})


def test_a_plan_counts_the_examples_and_steps_of_all_members_and_names_both_ranks(pair: Pair, base: Base) -> None:
    plan = advise(
        pair[0].dataset,
        base,
        SETTINGS,
        Ask(Aims(general=True, rank=6), measure=False),
        searcher=lambda _: lambda *_: [],
        members=pair,
        cache=pair[0].store.root / "plan",
    )
    run, adapter = train(pair[0].dataset, base, SETTINGS, None, pair, workspace=pair[0].store.workspace("planned"))
    assert plan["data"]["examples"] == run.facts["examples"] == len(CHINESE) + len(ENGLISH) - 4
    assert (plan["data"]["steps"], plan["data"]["tokens"]) == (run.facts["steps"], run.facts["tokens"])
    first = plan["estimates"][0]
    assert (first["role"], first["ranks"]) == ("project", {"shared": 4, "own": 2, "members": 2})
    assert plan["joint"]["examples"] == {"chinese": len(CHINESE) - 2, "english": len(ENGLISH) - 2}
    assert plan["joint"]["expert_parameters"] == adapter.facts["trainable_parameters"]
    assert first["trainable_parameters"] == trainable_parameters(read_shape(base.folder), method_of(SETTINGS, run.facts["examples"]))
    decided = plan["decision"]["trains"]
    assert (decided["name"], decided["rank"]) == ("lora", 6)
    assert plan["estimates"][1]["ranks"]["shared"] == decided["rank"], "the rank that is decided on is that of the shared part"
    assert any("each of the 2 projects has a part of rank 2 of its own" in note for note in plan["decision"]["notes"])
    alone = advise(pair[0].dataset, base, TrainingSettings(), Ask(Aims(general=True), measure=False), searcher=lambda _: lambda *_: [])
    assert (alone["joint"], alone["estimates"][0]["ranks"]) == (None, None)
    page = io.StringIO()
    show_plan(Console(file=page, width=200), "english", plan)
    assert "lora, 4 shared + 2 x 2 own" in page.getvalue()
    assert not list((pair[1].store.root / "tokens").glob(".writing*"))
