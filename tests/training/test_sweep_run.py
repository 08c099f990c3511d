"""Sweeps of real trainings on the tiny models: what is found, what is kept, and that an interruption changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.engines import Ray
from metier.engines.attempt import Answer, attempt
from metier.errors import InputError, MetierError, ModelError
from metier.events import Event
from metier.jackknife import Score
from metier.models import Base
from metier.records import Record
from metier.store import Store
from metier.training import SweepSettings, TrainingSettings, train
from metier.training.checking import Checked
from metier.training.settings import AdaptationSettings, BatchSettings, CheckpointSettings, ValidationSettings
from metier.training.sweep import SAME, Diary, local_workers, ray_workers, search
from metier.training.sweep.hopeless import Rule
from metier.training.sweep.job import Job, run_trial
from metier.training.sweep.space import Choices, Range, Space
from metier.training.sweep.spread import mean_loss, standard_error
from metier.training.sweep.trials import Journal

ROWS = [conversation(f"{color}的{thing}在哪里？", f"{thing}在{place}") for color, place in (("红", "左边"), ("绿", "右边")) for thing in "书笔灯门窗桌椅车"]
SETTINGS = TrainingSettings(
    adaptation=AdaptationSettings(rank=4),
    epochs=3,
    learning_rate=5e-3,
    precision="float32",
    batch=BatchSettings(row_tokens=128, rows=1, maximum_tokens=128),
    validation=ValidationSettings(times=3, limit=8, patience=9),
    checkpoint=CheckpointSettings(steps=1),
)
RANKS = Choices("adaptation.rank", (1, 8))
RATES = Choices("learning_rate", (1e-5, 2e-2))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=ROWS[:10], validation=ROWS[10:14], test=ROWS[14:])


class Here:
    """Workers that train in this process, one trial at a time; `deadly` is the number of trials after which the sweep is stopped."""

    def __init__(self, deadly: int | None = None) -> None:
        self.jobs: list[Job] = []
        self.trained: list[int] = []
        self.deadly = deadly

    def start(self, job: Job) -> None:
        self.jobs.append(job)

    def next(self) -> tuple[int, Answer]:
        job = self.jobs.pop(0)
        if len(self.trained) == self.deadly:
            raise KeyboardInterrupt
        self.trained.append(job.number)
        return job.number, attempt(run_trial, job)

    @contextmanager
    def entered(self) -> Iterator[Here]:
        yield self


def sweep(dataset: Artifact, base: Base, folder: Path, *parts: Any, workers: Here | None = None, training: TrainingSettings = SETTINGS, **wanted: Any) -> Any:
    space = Space(training, parts)
    made = (workers or Here()).entered()
    return search(dataset, base, space, SweepSettings(**{"trials": 8, "prune": "none", **wanted}), folder=folder, project="rooms", workers=made)


def told(facts: dict[str, Any]) -> list[Any]:
    """What a sweep found, without what a clock says."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in facts["trials"]] + [facts["curve"], facts["yaml"], facts["sentences"]]


def test_the_settings_that_learn_are_found_and_the_rest_of_the_project_stays_clean(dataset: Artifact, base: Base, store: Store) -> None:
    folder = store.root / "sweep" / "one"
    found = sweep(dataset, base, folder, RANKS, RATES)
    assert [row["state"] for row in found["trials"]] == ["complete"] * 4
    assert found["best"]["settings"] == found["recommended"]["settings"] == {"adaptation.rank": 8, "learning_rate": 2e-2}
    slow = [row["loss"] for row in found["trials"] if row["settings"]["learning_rate"] == 1e-5]
    assert found["best"]["loss"] < min(slow) - 1
    assert found["examples"] == 4
    assert all(row["losses"][-1] >= row["loss"] == min(row["losses"]) and len(row["losses"]) == 3 for row in found["trials"])
    assert store.newest("adapter") is None, "no adapter of a trial is taken for the project's own"
    assert sorted(path.name for path in folder.iterdir()) == ["journal.log", "report.html", "result.json", "tokens", "trials"]
    assert len(list((folder / "tokens").iterdir())) == 2, "what is read is tokenised once for all trials"
    assert list((folder / "trials").iterdir()) == [], "what was trained is not kept"
    assert json.loads((folder / "result.json").read_bytes()) == found


def test_a_search_over_ranges_finds_the_rate_that_learns_and_gives_the_others_up(dataset: Artifact, base: Base, store: Store) -> None:
    found = sweep(dataset, base, store.root / "sweep", Range("learning_rate", 1e-5, 3e-2, True, False), RANKS, trials=12, prune="median", warmup=3)
    assert found["best"]["settings"]["learning_rate"] > 5e-3
    assert found["best"]["settings"]["adaptation.rank"] == 8
    pruned = [row for row in found["trials"] if row["state"] == "pruned"]
    assert pruned
    assert all(row["loss"] > found["best"]["loss"] and len(row["losses"]) < 3 for row in pruned)
    assert next(iter(found["importance"]), "learning_rate") == "learning_rate"


def test_the_losses_are_those_of_the_same_training_outside_of_the_sweep(dataset: Artifact, base: Base, store: Store) -> None:
    found = sweep(dataset, base, store.root / "sweep" / "one", RANKS, RATES)
    best = found["best"]
    settings = Space(SETTINGS, (RANKS, RATES)).settings(best["settings"])
    run, _ = train(dataset, base, settings, workspace=store.workspace("outside"))
    assert run.facts["validation_loss"] == best["loss"]
    rows = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    measured = {row["validation_loss"]: row["validation_error"] for row in rows if "validation_loss" in row}
    assert best["standard_error"] == pytest.approx(measured[best["loss"]])
    assert "pruned" not in run.facts


def test_a_stopped_sweep_goes_on_with_the_same_trials_and_trains_none_twice(dataset: Artifact, base: Base, store: Store) -> None:
    parts = (Range("learning_rate", 1e-4, 2e-2, True, False), RANKS)
    whole = sweep(dataset, base, store.root / "sweep" / "whole", *parts, trials=5, prune="median", warmup=2)
    folder = store.root / "sweep" / "stopped"
    for stop in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            sweep(dataset, base, folder, *parts, workers=Here(deadly=stop), trials=5, prune="median", warmup=2)
    last = Here()
    found = sweep(dataset, base, folder, *parts, workers=last, trials=5, prune="median", warmup=2)
    assert last.trained == [3, 4], "three trials had ended before"
    assert told(found) == told(whole)
    after = Here()
    assert told(sweep(dataset, base, folder, *parts, workers=after, trials=5, prune="median", warmup=2)) == told(whole)
    assert after.trained == []
    more = Here()
    grown = sweep(dataset, base, folder, *parts, workers=more, trials=6, prune="median", warmup=2)
    assert more.trained == [5]
    assert told(grown)[:5] == told(whole)[:5]


class _Stop(Exception):
    pass


class Stopping:
    """A progress that stops its training at the n-th step."""

    def __init__(self, step: int) -> None:
        self.left = step

    def start(self, task: str, total: float | None = None, unit: str = "") -> None: ...

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        if task == "training":
            self.left -= 1
            if not self.left:
                raise _Stop

    def finish(self, task: str, note: str = "") -> None: ...

    def say(self, message: str) -> None: ...


def _job(dataset: Artifact, base: Base, folder: Path, *, prune: Any = "none", known: Any = (), training: TrainingSettings = SETTINGS) -> Job:
    space = Space(training, (RANKS, RATES))
    values = {"adaptation.rank": 8, "learning_rate": 1e-5}
    return Job(3, space.settings(values), dataset, base, folder, Rule(prune, space, values, tuple(known), 3, 1), folder.parent)


def test_a_trial_that_is_stopped_in_the_middle_comes_to_the_same_outcome(dataset: Artifact, base: Base, store: Store) -> None:
    whole = run_trial(_job(dataset, base, store.root / "whole"))
    folder = store.root / "stopped"
    for step in (3, 4):
        with pytest.raises(_Stop):
            run_trial(_job(dataset, base, folder), Stopping(step))
    found = run_trial(_job(dataset, base, folder))
    assert whole | {"seconds": 0} == found | {"seconds": 0}
    assert mean_loss(found["examples"]) == pytest.approx(found["loss"])
    assert standard_error(found["examples"]) is not None
    assert run_trial(_job(dataset, base, folder)) == found, "a trial that is done says so at once"


def test_a_hopeless_trial_is_given_up_with_its_reason_also_after_an_interruption(dataset: Artifact, base: Base, store: Store) -> None:
    space = Space(SETTINGS, (RANKS, RATES))
    sweep(dataset, base, store.root / "good", Choices("adaptation.rank", (1, 8)), Choices("learning_rate", (1e-2, 2e-2)))
    good = Journal(store.root / "good" / "journal.log", Space(SETTINGS, (Choices("adaptation.rank", (1, 8)), Choices("learning_rate", (1e-2, 2e-2))))).trials()
    known = [trial for trial in good if trial.values["learning_rate"] == 2e-2]
    assert space.settings(known[0].values).learning_rate == 2e-2
    whole = run_trial(_job(dataset, base, store.root / "whole", prune="median", known=known))
    assert (whole["state"], whole["examples"], len(whole["losses"])) == ("pruned", [], 2)
    assert whole["reason"].startswith("worse than the median of trials no larger at validation 2 of 3 (step ")
    folder = store.root / "stopped"
    with pytest.raises(_Stop):
        run_trial(_job(dataset, base, folder, prune="median", known=known), Stopping(2))
    assert run_trial(_job(dataset, base, folder, prune="median", known=known)) | {"seconds": 0} == whole | {"seconds": 0}


def test_a_judge_ends_a_training_as_pruned(dataset: Artifact, base: Base, store: Store) -> None:
    heard: list[tuple[int, float]] = []

    def judge(step: int, checked: Checked, score: Score | None) -> bool:
        heard.append((step, checked.mean()))
        return len(heard) == 2

    run, adapter = train(dataset, base, SETTINGS, workspace=store.workspace("judged"), judge=judge)
    rows = [json.loads(line) for line in run.file("metrics.jsonl").read_text().splitlines()]
    assert run.facts["pruned"] is True
    assert [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row] == heard
    assert rows[-1]["step"] == heard[-1][0] < 9
    assert adapter.path.is_dir()


def test_a_trial_that_cannot_be_trained_is_an_outcome_and_the_others_go_on(dataset: Artifact, base: Base, store: Store) -> None:
    found = sweep(dataset, base, store.root / "sweep", Choices("adaptation.rank", (2, 64)))
    failed = next(row for row in found["trials"] if row["settings"]["adaptation.rank"] == 64)
    assert (failed["state"], failed["loss"]) == ("failed", None)
    assert failed["reason"].startswith("rank 64 is larger than the layer")
    assert found["recommended"]["settings"] == {"adaptation.rank": 2}
    with pytest.raises(ModelError, match="every one of the 2 trials failed: rank 63 is larger"):
        sweep(dataset, base, store.root / "all", Choices("adaptation.rank", (63, 64)))


def test_a_dataset_without_validation_is_refused_before_anything_is_trained(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    workers = Here()
    with pytest.raises(InputError, match="no validation split"):
        sweep(make_dataset(train=ROWS), base, store.root / "sweep", RANKS, workers=workers)
    assert workers.jobs == []


@pytest.mark.parametrize(
    ("method", "part", "size"),
    [
        ("lora", RANKS, "adaptation.rank"),
        ("adalora", RANKS, "adaptation.rank"),
        ("dora", RANKS, "adaptation.rank"),
        ("full", Choices("learning_rate", (1e-5, 1e-3)), None),
        ("partial", Choices("adaptation.layers", (1, 2)), "adaptation.layers"),
        ("adapter", Choices("adaptation.size", (2, 8)), "adaptation.size"),
        ("prefix", Choices("adaptation.tokens", (2, 4)), "adaptation.tokens"),
        ("prompt", Choices("adaptation.tokens", (2, 4)), "adaptation.tokens"),
    ],
)
def test_every_kind_of_method_can_be_searched(method: str, part: Choices, size: str | None, dataset: Artifact, base: Base, store: Store) -> None:
    training = SETTINGS.model_copy(update={"method": method, "adaptation": AdaptationSettings(), "epochs": 1.0})
    training = TrainingSettings.model_validate_json(training.model_dump_json(exclude_defaults=True))
    found = sweep(dataset, base, store.root / "sweep", part, training=training)
    assert [row["state"] for row in found["trials"]] == ["complete", "complete"]
    assert found["size"] == size
    assert [item["size"] for item in found["curve"]] == ([] if size is None else list(part.values))


def _labelled(number: int) -> Record:
    from metier.records import identify

    word = ("warm", "cold")[number % 2]
    record = Record(id="", text=f"{word} water in pot {number}", label=word, language="en", task="classification")
    return Record(id=identify(record), text=record.text, label=word, language="en", task="classification")


def test_labels_are_searched_too(make_dataset: MakeDataset, encoder: Base, store: Store) -> None:
    records = [_labelled(number) for number in range(24)]
    dataset = make_dataset(train=records[:16], validation=records[16:], test=[])
    training = TrainingSettings(task="classification", epochs=4, precision="float32", validation=ValidationSettings(times=2))
    found = sweep(dataset, encoder, store.root / "sweep", Choices("learning_rate", (1e-6, 3e-3)), training=training)
    assert found["best"]["settings"]["learning_rate"] == 3e-3
    assert found["best"]["effective"]["method"] == "full"
    assert found["examples"] == 8


def test_trials_in_processes_of_their_own_find_the_same(dataset: Artifact, base: Base, store: Store) -> None:
    space, wanted = Space(SETTINGS, (RANKS,)), SweepSettings(trials=2, prune="none", parallel=2)
    here = sweep(dataset, base, store.root / "here", RANKS, trials=2, parallel=2)
    apart = search(dataset, base, space, wanted, folder=store.root / "apart", project="rooms", workers=local_workers(_Silent(), 2))
    assert told(apart) == told(here)


class _Silent:
    def start(self, task: str, total: float | None = None, unit: str = "") -> None: ...

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None: ...

    def finish(self, task: str, note: str = "") -> None: ...

    def say(self, message: str) -> None: ...


def test_a_trial_that_ended_before_it_could_be_put_on_record_is_put_there_by_the_next_attempt(dataset: Artifact, base: Base, store: Store) -> None:
    space, wanted, kept = Space(SETTINGS, (RANKS,)), SweepSettings(trials=2, prune="none"), list[Event]()
    failing = [True]

    def keep(event: Event) -> None:
        if event.facts["what"] == "trial" and failing.pop() if failing else False:
            raise OSError("the log's disk is full")
        if not any([event.facts.get(name) for name in SAME] == [known.facts.get(name) for name in SAME] for known in kept):
            kept.append(event)

    def attempt() -> dict[str, Any]:
        diary = Diary("0" * 64, "someone", keep)
        return search(dataset, base, space, wanted, folder=store.root / "sweep", project="rooms", workers=Here().entered(), diary=diary)

    with pytest.raises(OSError, match="disk is full"):
        attempt()
    assert [event.facts["what"] for event in kept] == ["begun"]
    found = attempt()
    assert [(event.facts["what"], event.facts.get("trial")) for event in kept] == [("begun", None), ("trial", 0), ("trial", 1), ("ended", None)]
    assert kept[1].facts["value"] == found["trials"][0]["loss"]
    assert kept[-1].facts["recommended"] == found["recommended"]["number"]
    said = json.dumps([dict(event.facts) for event in kept], ensure_ascii=False)
    assert not any(message.content in said for record in ROWS for message in record.messages)


def test_an_error_that_concerns_every_trial_ends_the_sweep(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    long = [conversation("where " * 200, "here"), conversation("why " * 200, "so")]
    dataset = make_dataset(train=long, validation=ROWS[:2])
    with pytest.raises(MetierError, match="there is no example to train on"):
        sweep(dataset, base, store.root / "sweep", RANKS)


def test_trials_as_tasks_of_ray_find_the_same(dataset: Artifact, base: Base, store: Store) -> None:
    pytest.importorskip("ray")
    space, wanted = Space(SETTINGS, (RANKS,)), SweepSettings(trials=2, prune="none")
    here = sweep(dataset, base, store.root / "here", RANKS, trials=2)
    found = search(dataset, base, space, wanted, folder=store.root / "ray", project="rooms", workers=ray_workers(Ray(workers=1), 1))
    assert told(found) == told(here)
