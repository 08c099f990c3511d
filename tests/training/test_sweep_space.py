"""What may be searched, and what is refused before anything is loaded: every fault at once, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from metier.config import load_yaml
from metier.errors import ConfigError
from metier.models import Base
from metier.project import load_project
from metier.training.sweep import Space, check_fit, read_space
from training.test_labels_methods import without_places

HEAD = "metier: 1\nproject: searched\npack: example\nsources: [{path: data/a.jsonl, licence: CC0-1.0}]\n"


def space_of(folder: Path, sections: str) -> Space:
    file = folder / "metier.yaml"
    file.write_text(HEAD + sections, encoding="utf-8")
    settings = load_project(folder).settings
    return read_space(settings.training, settings.sweep, load_yaml(file))


def faults_of(folder: Path, sections: str) -> list[tuple[int | None, str | None, str]]:
    with pytest.raises(ConfigError) as raised:
        space_of(folder, sections)
    return [(fault.line, fault.key, fault.what) for fault in raised.value.faults]


def test_any_key_of_training_can_be_searched(tmp_path: Path) -> None:
    space = space_of(
        tmp_path,
        """training: {epochs: 3, optimizer: {clip: 0.5}}
sweep:
  search:
    learning_rate: {low: 1e-4, high: 5e-3, log: true}
    adaptation.rank: [8, 1, 2]
    adaptation.targets: [all-linear, [q_proj, v_proj]]
    optimizer.schedule: [cosine, linear]
    batch.rows: {low: 1, high: 4}
    batch.shares.alpha: [0.3, 1.0]
    replay.share: {low: 0.0, high: 0.3}
""",
    )
    assert space.combinations is None
    learning_rate, rank, targets, _, rows, _, _ = space.parts
    assert (learning_rate.low, learning_rate.high, learning_rate.whole) == (1e-4, 5e-3, False)
    assert rank.values == (1, 2, 8), "numbers are sorted, so that near ones are neighbours"
    assert targets.values == ("all-linear", ["q_proj", "v_proj"])
    assert rows.whole
    made = space.settings(
        {
            "batch.shares.alpha": 0.3,
            "replay.share": 0.1,
            "learning_rate": 0.002,
            "adaptation.rank": 2,
            "adaptation.targets": ["q_proj", "v_proj"],
            "optimizer.schedule": "linear",
        }
    )
    assert (made.learning_rate, made.adaptation.rank, made.adaptation.targets) == (0.002, 2, ("q_proj", "v_proj"))
    assert (made.batch.shares.alpha, made.replay.share) == (0.3, 0.1), "how the records are mixed is a setting too"
    assert (made.epochs, made.optimizer.clip, made.optimizer.schedule) == (3, 0.5, "linear"), "what is not searched stays as it is"


def test_a_number_from_a_range_has_three_digits_and_stays_inside(tmp_path: Path) -> None:
    (part,) = space_of(tmp_path, "sweep: {search: {learning_rate: {low: 0.00012345, high: 0.0098765}}}\n").parts
    assert part.rounded(0.00234567) == 0.00235
    assert part.rounded(0.00012349) == 0.00012345
    assert part.rounded(0.0098764) == 0.0098765


def test_every_fault_of_the_search_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    found = faults_of(
        tmp_path,
        """training: {validation: {times: 0}}
sweep:
  search:
    lerning_rate: [0.1, 0.2]
    adaptation.rank: [1, 2, 2]
    adaptation.dropout: [0.1]
    optimizer.schedule: {low: 1, high: 2}
    batch.rows: {low: 1, high: 2.5}
    epochs: []
    validation.limit: [8, 16]
    seed: [1, 2]
    prepare.mix.alpha: [0.1, 0.5]
    adaptation.size: [16, 32]
    optimizer.clip: [0.5, -1]
""",
    )
    assert [(line, key) for line, key, _ in found] == [
        (5, "training.validation.times"),
        (8, "sweep.search.lerning_rate"),
        (9, "sweep.search.adaptation.rank"),
        (10, "sweep.search.adaptation.dropout"),
        (11, "sweep.search.optimizer.schedule"),
        (12, "sweep.search.batch.rows"),
        (13, "sweep.search.epochs"),
        (14, "sweep.search.validation.limit"),
        (15, "sweep.search.seed"),
        (16, "sweep.search.prepare.mix.alpha"),
        (17, "sweep.search.adaptation.size"),
        (18, "sweep.search.optimizer.clip"),
    ], found
    said = {key: what for _, key, what in found}
    assert said["sweep.search.adaptation.rank"] == "stands twice: 2"
    assert said["sweep.search.adaptation.dropout"] == "one value is no search"
    assert said["sweep.search.prepare.mix.alpha"] == "it changes the dataset, and losses over different validation splits cannot be compared"
    assert "does not use adaptation.size" in said["sweep.search.adaptation.size"]
    assert said["sweep.search.optimizer.clip"] == "-1: input should be greater than 0"


def test_a_private_training_is_not_searched(tmp_path: Path) -> None:
    private = "training: {privacy: {epsilon: 3}, validation: {times: 0}}\n"
    ((line, key, what),) = faults_of(tmp_path, private + "sweep: {search: {learning_rate: [0.1, 0.2]}}\n")
    assert (line, key) == (5, "training.privacy.epsilon")
    assert "the guarantee would not cover a search" in what


def test_an_empty_search_says_how_to_write_one(tmp_path: Path) -> None:
    ((line, key, what),) = faults_of(tmp_path, "sweep: {trials: 3}\n")
    assert (line, key, what) == (5, "sweep.search", "nothing is searched")


@pytest.mark.parametrize(
    ("search", "what"),
    [
        ("{low: 2, high: 1}", "the range from 2 to 1 is empty"),
        ("{low: 0, high: 1, log: true}", "a logarithmic range cannot begin at 0"),
        ("{low: 1, hihg: 2}", "unknown key"),
        ("0.5", "input should be a valid array (it is 0.5)"),
    ],
)
def test_a_range_that_holds_nothing_is_refused_by_every_command(tmp_path: Path, search: str, what: str) -> None:
    (tmp_path / "metier.yaml").write_text(f"{HEAD}sweep:\n  search:\n    learning_rate: {search}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load_project(tmp_path)
    assert any(what in fault.what and fault.line == 7 for fault in raised.value.faults)


def test_values_are_tried_with_every_method_that_is_searched(tmp_path: Path) -> None:
    found = faults_of(tmp_path, "sweep: {search: {method: [lora, prompt], adaptation.rank: [2, 4]}}\n")
    assert {what for _, _, what in found} == {"the method 'prompt' does not use adaptation.rank"}
    assert space_of(tmp_path, "sweep: {search: {method: [lora, dora, rslora], adaptation.rank: [2, 4]}}\n").combinations == 6


def test_a_key_that_nothing_would_read_is_refused(tmp_path: Path) -> None:
    stages = "training: {stages: [{name: first, learning_rate: 0.1}, {name: second, learning_rate: 0.2}]}\n"
    ((_, key, what),) = faults_of(tmp_path, stages + "sweep: {search: {learning_rate: [0.1, 0.2]}}\n")
    assert (key, what) == ("sweep.search.learning_rate", "every stage has its own, so nothing would change")
    ((_, key, what),) = faults_of(tmp_path, "sweep: {search: {objectives.distillation.weight: [0.1, 0.2]}}\n")
    assert (key, what) == ("sweep.search.objectives.distillation.weight", "there is no teacher, so nothing would change")
    some = "training: {stages: [{name: first, learning_rate: 0.1}, {name: second}]}\n"
    assert space_of(tmp_path, some + "sweep: {search: {learning_rate: [0.1, 0.2]}}\n").combinations == 2


def test_what_the_base_model_does_not_have_is_refused_by_its_shape_alone(tmp_path: Path, base: Base) -> None:
    space = space_of(tmp_path, "sweep:\n  search:\n    adaptation.rank: [4, 64]\n    adaptation.targets: [all-linear, [q_proj], [c_attn]]\n")
    with pytest.raises(ConfigError) as raised:
        check_fit(space, base, load_yaml(tmp_path / "metier.yaml"))
    rank, targets = sorted(raised.value.faults, key=lambda fault: fault.line or 0)
    assert (rank.line, rank.key) == (7, "sweep.search.adaptation.rank")
    assert "64 is larger than the layer 'model.layers.0.self_attn.k_proj' (64 x 32)" in rank.what
    assert (targets.line, targets.key) == (8, "sweep.search.adaptation.targets")
    assert "'c_attn'" in targets.what


def test_labels_are_searched_with_what_labels_are_taught_by(tmp_path: Path, encoder: Base) -> None:
    file = tmp_path / "metier.yaml"
    task = "training: {task: classification}\n"
    space = space_of(tmp_path, f"{task}sweep: {{search: {{adaptation.rank: [2, 4]}}}}\n")
    with pytest.raises(ConfigError, match="full does not use it, which classification is taught by here"):
        check_fit(space, encoder, load_yaml(file))
    space = space_of(tmp_path, f"{task}sweep: {{search: {{method: [lora, adapter, prefix]}}}}\n")
    with pytest.raises(ConfigError) as raised:
        check_fit(space, without_places(tmp_path / "model", encoder), load_yaml(file))
    assert [fault.key for fault in raised.value.faults] == ["sweep.search.method"] * 2
    assert "no block where a bottleneck could stand" in str(raised.value)
    check_fit(space, encoder, load_yaml(file))
    space = space_of(tmp_path, f"{task}sweep: {{search: {{objectives.kl: {{low: 0, high: 1}}}}}}\n")
    with pytest.raises(ConfigError, match="classification is taught without `kl`"):
        check_fit(space, encoder, load_yaml(file))
    check_fit(space_of(tmp_path, f"{task}sweep: {{search: {{method: [lora, full]}}}}\n"), encoder, load_yaml(file))
