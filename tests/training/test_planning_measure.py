"""A plan from a real dataset and a real tiny model: the rows it reads, ten steps, the document, and what is kept of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import MakeDataset, conversation
from metier.artifacts import Artifact
from metier.errors import InputError
from metier.models import Base, Chat, load_tokenizer
from metier.prepare.generate.retrieval import Index
from metier.shards import dataset_records
from metier.store import Store
from metier.training import TrainingSettings, train
from metier.training.batches import encode_records, row_of
from metier.training.curriculum import plan_steps
from metier.training.planning.advice import advise
from metier.training.planning.ask import Ask
from metier.training.planning.decide import Aims
from metier.training.planning.hardware import Machine, named, resident_bytes, this_machine
from metier.training.planning.measure import STEPS, calibrate, chosen_rows
from metier.training.planning.memory import Means
from metier.training.planning.methods import method_of
from metier.training.planning.shape import parameters, read_shape
from metier.training.planning.work import load_of, row_shape, training_flops
from metier.training.settings import AdaptationSettings, BatchSettings, SelectionSettings, StageSettings, ValidationSettings

SETTINGS = TrainingSettings(
    epochs=2.0,
    adaptation=AdaptationSettings(rank=4),
    learning_rate=0.01,
    precision="float32",
    batch=BatchSettings(row_tokens=128),
    validation=ValidationSettings(times=2),
)
SEASONS = {"春": "播种", "夏": "除草", "秋": "收割", "冬": "休息", "spring": "sow", "summer": "weed", "autumn": "reap", "winter": "rest"}
RECORDS = [
    conversation(f"{season}，{number}？" if len(season) == 1 else f"In {season}, {number}?", answer, task="farm", language="zh" if len(season) == 1 else "en")
    for number in range(12)
    for season, answer in SEASONS.items()
]


def searcher(texts: Any) -> Any:
    index = Index(texts)
    return lambda query, count: [number for number, _ in index.search(query, count)]


@pytest.fixture
def dataset(make_dataset: MakeDataset) -> Artifact:
    return make_dataset(train=RECORDS[:80], validation=RECORDS[80:])


def ask(**changes: Any) -> Ask:
    return Ask(**{"aims": Aims(general=True), "items": 4, "shots": 2, **changes})


def test_the_rows_of_the_plan_are_those_that_are_trained(dataset: Artifact, base: Base) -> None:
    taught = encode_records(dataset_records(dataset, "train"), Chat(load_tokenizer(base)), 1024)
    plan, examples = plan_steps(taught, SETTINGS), taught.examples
    few = encode_records(RECORDS[80:83], Chat(load_tokenizer(base)), 1024)
    load = load_of(taught, plan, few, row_tokens=4096)
    for step, rows in zip(plan.steps, load.steps, strict=True):
        for indices, found in zip(step, rows, strict=True):
            row = row_of([examples[index] for index in indices])
            assert (found.tokens, found.labels, found.examples, found.longest) == (len(row.tokens), len(row.labels), len(row.lengths), max(row.lengths))
            assert found.pairs == sum(length**2 for length in row.lengths)
    assert load.tokens == 2 * sum(map(len, examples))
    assert load.checks == (row_shape(few, range(3)),)


def test_calibration_measures_ten_steps_and_leaves_the_base_model_as_it_was(dataset: Artifact, base: Base) -> None:
    taught = encode_records(dataset_records(dataset, "train"), Chat(load_tokenizer(base)), 1024)
    examples = taught.examples
    shape, method, means = read_shape(base.folder), method_of(SETTINGS, len(examples)), Means(4)
    rows = chosen_rows(plan_steps(taught, SETTINGS), taught, shape, method, means)
    assert len(rows) == STEPS + 1
    work = [training_flops(shape, method, row_shape(taught, row)) for row in rows]
    assert rows[0] == rows[1]
    assert work[2:] == sorted(work[2:])
    before = base.folder.joinpath("model.safetensors").read_bytes()
    found = calibrate(base, taught, rows, SETTINGS, shape, method=method, means=means)
    assert found.steps == STEPS
    assert found.tokens == sum(sum(len(examples[index]) for index in row) for row in rows[1:])
    assert found.flops == pytest.approx(sum(work[1:]) / found.seconds)
    assert base.folder.joinpath("model.safetensors").read_bytes() == before


def test_a_plan_with_fewer_rows_than_ten_measures_those_that_there_are(make_dataset: MakeDataset, base: Base) -> None:
    taught = encode_records(RECORDS[:6], Chat(load_tokenizer(base)), 1024)
    settings = SETTINGS.model_copy(update={"epochs": 1.0})
    shape, method = read_shape(base.folder), method_of(settings, 6)
    rows = chosen_rows(plan_steps(taught, settings), taught, shape, method, Means(4))
    assert {index for row in rows for index in row} == set(range(6))


def test_the_document_holds_the_decision_prompting_memory_time_and_cost(dataset: Artifact, base: Base, tmp_path: Path) -> None:
    others = tuple(named(["l4", "h100"]))
    facts = advise(dataset, base, SETTINGS, ask(others=others, prices={"here": 3.0, "h100": 2.0}), searcher=searcher, cache=tmp_path / "plan")
    json.dumps(facts, allow_nan=False)
    assert facts["base"]["parameters"] == parameters(read_shape(base.folder))
    assert facts["data"]["examples"] == 80
    assert facts["decision"]["method"]["rank"] == 4
    assert facts["decision"]["besides"] == ("regularisation",)
    assert {row["family"] for row in facts["prompting"]} == {"farm zh", "farm en"}
    assert facts["conclusion"]
    rows = {(row["machine"], row["role"]): row for row in facts["estimates"]}
    assert {machine for machine, _ in rows} == {"here", "l4", "h100"}
    here = rows["here", "project"]
    assert here["calibrated"]
    assert here["seconds"][0] == here["seconds"][1] == pytest.approx(here["flops"] / facts["calibration"]["flops"])
    assert here["cost"][0] == pytest.approx(3.0 * here["seconds"][0] / 3600)
    assert here["memory"]["total"] >= here["memory"]["process"] > 100e6
    assert rows["l4", "project"]["cost"] is None
    low, high = rows["h100", "project"]["seconds"]
    assert high == pytest.approx(low * 0.46 / 0.2)
    assert low == pytest.approx(here["flops"] / (989.5e12 * 0.46))


def test_what_was_measured_is_found_again_and_other_data_is_measured_anew(dataset: Artifact, make_dataset: MakeDataset, base: Base, tmp_path: Path) -> None:
    cache = tmp_path / "plan"
    first = advise(dataset, base, SETTINGS, ask(), searcher=searcher, cache=cache)
    kept = sorted(cache.iterdir())
    assert len(kept) == 4, "the calibration, two families of questions and the gaps"
    again = advise(dataset, base, SETTINGS, ask(), searcher=searcher, cache=cache)
    assert again["calibration"] == first["calibration"]
    assert again["prompting"] == first["prompting"]
    other = make_dataset(train=RECORDS[:70], validation=RECORDS[80:])
    advise(other, base, SETTINGS, ask(), searcher=searcher, cache=cache)
    assert len(list(cache.iterdir())) == 8
    # A file that a kill or a full disk spoilt is measured again, not believed.
    for path in kept:
        path.write_bytes(b'{"half')
    spoilt = advise(dataset, base, SETTINGS, ask(), searcher=searcher, cache=cache)
    assert spoilt["prompting"] == first["prompting"]


def test_counting_alone_measures_nothing_and_gives_a_range(dataset: Artifact, base: Base, tmp_path: Path) -> None:
    facts = advise(dataset, base, SETTINGS, ask(measure=False), searcher=searcher, cache=tmp_path / "plan")
    assert not (tmp_path / "plan").exists()
    assert facts["calibration"] is facts["prompting"] is facts["conclusion"] is None
    low, high = facts["estimates"][0]["seconds"]
    assert 0 < low < high


def test_an_automatic_rank_is_the_one_that_training_takes(make_dataset: MakeDataset, base: Base, store: Store) -> None:
    settings = SETTINGS.model_copy(update={"adaptation": AdaptationSettings(), "epochs": 0.1})
    for count in (80, 500):
        records = [conversation(f"{number}?", "yes") for number in range(count)]
        run, _ = train(make_dataset(train=records), base, settings, workspace=store.workspace(f"rank-{count}"))
        assert run.facts["settings"]["effective"]["adaptation"]["rank"] == method_of(settings, count).rank
        assert run.facts["trainable_parameters"] == advise(
            make_dataset(train=records), base, settings, ask(measure=False), searcher=searcher
        )["estimates"][0]["trainable_parameters"]  # fmt: skip


def test_what_does_not_fit_or_takes_too_long_is_said_with_what_would_help(dataset: Artifact, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    held, _ = resident_bytes() or (0, 0)
    facts = advise(dataset, base, SETTINGS, ask(measure=False, aims=Aims(general=True, hours=1e-7)), searcher=searcher)
    (slow,) = facts["warnings"]
    assert re.search(r"takes up to 0\.\d hours, more than the 1e-07 that are allowed: .* epochs would fit", slow)
    needed = facts["estimates"][0]["memory"]
    wide = SETTINGS.model_copy(update={"batch": BatchSettings(row_tokens=1024)})
    room = held + needed["weights"] + needed["activations"] * 4 + 40_000_000

    def small(precision: str) -> Machine:
        return Machine("small", False, room, 1e12, (0.4, 0.8), 4)

    monkeypatch.setattr("metier.training.planning.advice.this_machine", small)
    fits = advise(dataset, base, wide, ask(measure=False), searcher=searcher)
    assert fits["warnings"] == []
    room = 1_000_000
    (large,) = advise(dataset, base, wide, ask(), searcher=searcher)["warnings"]
    assert re.search(r"Training needs .* GB and this machine has .* GB\. Shorter rows do not help; \S+ would hold it", large)


@pytest.mark.parametrize("method", ["full", "prefix", "adalora"])
def test_the_method_of_the_project_is_the_one_that_is_measured(dataset: Artifact, base: Base, store: Store, method: Any) -> None:
    settings = SETTINGS.model_copy(update={"method": method, "learning_rate": "auto", "epochs": 0.4, "adaptation": AdaptationSettings()})
    facts = advise(dataset, base, settings, ask(items=0), searcher=searcher)
    own = next(row for row in facts["estimates"] if row["role"] == "project")
    assert own["method"]["name"] == method
    assert own["calibrated"]
    run, _ = train(dataset, base, settings, workspace=store.workspace(f"method-{method}"))
    assert run.facts["trainable_parameters"] == own["trainable_parameters"]
    assert run.facts["tokens"] == facts["data"]["tokens"], "virtual tokens are read too"


def test_a_plan_for_spans_says_what_the_data_lack(dataset: Artifact, base: Base) -> None:
    with pytest.raises(InputError, match="no training record has spans"):
        advise(dataset, base, SETTINGS.model_copy(update={"task": "tagging"}), ask(), searcher=searcher)


def test_data_without_a_usable_example_and_an_unknown_accelerator_are_refused(make_dataset: MakeDataset, base: Base) -> None:
    with pytest.raises(InputError, match=r"no example to train on; all 1 were left out \(first: too_many_tokens"):
        advise(make_dataset(train=[conversation("长" * 2000, "短")]), base, SETTINGS, ask(), searcher=searcher)
    with pytest.raises(InputError, match=r"'h10'(.|\n)*'h100'(.|\n)*'l44'"):
        named(["h10", "l44"])


def test_this_machine_says_what_it_has() -> None:
    found = this_machine("float32")
    assert (found.accelerator, found.precision) == (torch.cuda.is_available(), 4)
    assert found.flops > 1e9
    held, most = resident_bytes() or (1, 1)
    assert 0 < held <= most < found.memory
    machine = Machine("one", False, 1, 100.0, (0.2, 0.5), 4)
    assert machine.seconds(1000.0) == (20.0, 50.0)


def test_every_accelerator_in_the_file_is_plausible() -> None:
    for machine in named(["all"]):
        assert 16e9 <= machine.memory <= 300e9
        assert machine.bandwidth is not None
        # No card of these years reads less than 50 or more than 600 FLOPs a byte: a slip of a unit or of sparsity would.
        assert 50 <= machine.flops / machine.bandwidth <= 600 or machine.name == "h20"


def test_a_plan_counts_the_rows_of_every_stage(dataset: Artifact, base: Base, tmp_path: Path) -> None:
    tasks = sorted({record.task or "" for record in RECORDS})
    stages = [StageSettings(name="first", epochs=1.0), StageSettings(name="again", epochs=3.0, records=SelectionSettings(task=(tasks[0],)))]
    staged = SETTINGS.model_copy(update={"stages": tuple(stages), "epochs": 2.0})
    facts = advise(dataset, base, staged, ask(measure=False), searcher=searcher, cache=tmp_path / "plan")
    taught = encode_records(dataset_records(dataset, "train"), Chat(load_tokenizer(base)), 1024)
    second = sum(len(example) for example, origin in zip(taught.examples, taught.origins, strict=True) if origin.task == tasks[0])
    assert facts["data"]["tokens"] == sum(len(example) for example in taught.examples) + 3 * second
    seen = 80 + 3 * sum(origin.task == tasks[0] for origin in taught.origins)
    assert facts["data"]["epochs"] == pytest.approx(seen / 80)
