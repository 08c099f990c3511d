"""What follows from trials: the rule of one standard error, with the figures worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml

from metier.training import TrainingSettings
from metier.training.sweep.conclude import conclude, yaml_lines
from metier.training.sweep.report import headline, write_report
from metier.training.sweep.space import Choices, Space
from metier.training.sweep.spread import mean_loss, paired_error, standard_error
from metier.training.sweep.trials import Trial, failed

SPACE = Space(TrainingSettings(), (Choices("adaptation.rank", (1, 4, 16)), Choices("learning_rate", (0.001, 0.002))))
EXAMPLES = [(2.0, 2), (9.0, 3), (5.0, 5)]


def trial(number: int, rank: int, shift: float, *, rate: float = 0.001, state: str = "complete") -> Trial:
    """A trial whose loss on every token is that of EXAMPLES and so much more."""
    examples = [(total + shift * count, count) for total, count in EXAMPLES]
    loss = mean_loss(examples)
    outcome: dict[str, Any] = {"state": state, "value": loss, "course": [loss + 1, loss], "reason": None}
    outcome |= {"loss": loss, "losses": [loss + 1, loss], "examples": examples if state == "complete" else []}
    outcome |= {"seconds": 1.5, "trainable_parameters": 100 * rank, "effective": {}}
    return Trial(number, {"adaptation.rank": rank, "learning_rate": rate}, outcome)


def test_the_standard_error_is_that_of_a_ratio_over_examples() -> None:
    # L = 16 / 10; residuals 2 - 3.2, 9 - 4.8, 5 - 8; m = 3.
    assert mean_loss(EXAMPLES) == pytest.approx(1.6)
    assert standard_error(EXAMPLES) == pytest.approx(math.sqrt(3 / 2 * (1.2**2 + 4.2**2 + 3.0**2)) / 10)
    assert standard_error(EXAMPLES[:1]) is None


def test_what_makes_an_example_hard_for_both_cancels_out_in_a_pair() -> None:
    error = paired_error([(total + 0.1 * count, count) for total, count in EXAMPLES], EXAMPLES)
    assert error == pytest.approx(0.0, abs=1e-9)


def test_the_smallest_rank_within_one_standard_error_is_recommended() -> None:
    error = standard_error(EXAMPLES)
    assert error is not None
    trials = [trial(0, 16, 0.0), trial(1, 4, 0.9 * error), trial(2, 1, 1.1 * error), trial(3, 4, 2.0, rate=0.002), trial(4, 1, 0.0, state="pruned")]
    found = conclude(SPACE, trials)
    assert (found["best"]["number"], found["best"]["standard_error"]) == (0, pytest.approx(error))
    assert found["recommended"]["number"] == 1
    assert [(item["size"], item["trial"], item["trials"], item["within"]) for item in found["curve"]] == [(1, 2, 1, False), (4, 1, 2, True), (16, 0, 1, True)]
    assert found["curve"][1]["difference"] == pytest.approx(0.9 * error)
    assert yaml.safe_load(found["yaml"]) == {"training": {"adaptation": {"rank": 4}, "learning_rate": 0.001}}
    words = " ".join(found["sentences"])
    assert "The smallest rank within one standard error of it is 4, with " in words
    assert "(trial 1); the best has 16." in words
    assert "Example by example the best is clearly better all the same" in words


def test_without_a_smaller_rank_that_does_the_best_is_recommended() -> None:
    found = conclude(SPACE, [trial(0, 16, 0.0), trial(1, 4, 5.0)])
    assert found["recommended"]["number"] == 0
    assert "No smaller rank than 16 comes within one standard error of it." in found["sentences"]


def test_what_cannot_be_said_is_said() -> None:
    found = conclude(SPACE, [trial(0, 16, 0.0), trial(1, 4, 1.0, state="pruned")])
    assert "No trial of rank 4 is complete, so nothing is said of it." in found["sentences"]
    none = conclude(SPACE, [trial(0, 16, 0.0, state="pruned"), Trial(1, {"adaptation.rank": 1, "learning_rate": 0.002}, failed("the loss is nan"))])
    assert (none["best"], none["recommended"], none["yaml"]) == (None, None, "")
    assert headline(none) == "No trial is complete: nothing can be recommended."


def test_without_a_size_the_best_trial_is_recommended() -> None:
    space = Space(TrainingSettings(), (Choices("learning_rate", (0.001, 0.002)),))
    trials = [Trial(item.number, {"learning_rate": item.values["learning_rate"]}, item.outcome) for item in (trial(0, 1, 0.5), trial(1, 1, 0.0, rate=0.002))]
    found = conclude(space, trials)
    assert (found["size"], found["curve"], found["recommended"]["number"]) == (None, [], 1)


def test_of_trials_with_one_score_the_one_of_the_lowest_loss_is_the_best() -> None:
    space = Space(TrainingSettings(), (Choices("learning_rate", (0.001, 0.002, 0.003)),))
    trials = [trial(number, 16, shift, rate=0.001 * (number + 1)) for number, shift in enumerate((0.9, 0.1, 0.5))]
    for found in trials:
        assert found.outcome is not None
        found.outcome["value"] = 1.0
    assert conclude(space, trials)["best"]["number"] == conclude(space, trials)["recommended"]["number"] == 1


def test_the_lines_for_the_project_file_are_read_back_as_they_are() -> None:
    values = {"learning_rate": 0.000123, "adaptation.rank": 4, "adaptation.targets": ["q_proj", "v_proj"], "optimizer.clip": 0.5, "method": "dora"}
    text = yaml_lines(values)
    assert TrainingSettings.model_validate_json(__import__("json").dumps(yaml.safe_load(text)["training"])).adaptation.targets == ("q_proj", "v_proj")
    assert text.startswith("training:\n  learning_rate: 0.000123\n")


def test_the_report_shows_every_trial_and_what_to_take_and_asks_nobody() -> None:
    trials = [trial(0, 16, 0.0), trial(1, 4, 0.1), trial(2, 1, 3.0, state="pruned")]
    facts = {"base": "a <base>", "dataset": "0" * 64, "examples": 3} | conclude(SPACE, trials)
    page = write_report("advisor", facts)
    assert "Take adaptation.rank 4, learning_rate 0.001 (trial 1)." in page
    assert "a &lt;base&gt;" in page
    assert page.count("<svg") == 2, "loss by rank, loss of each trial; importance needs ten trials"
    assert page.count('class="dot pruned"') == 1
    assert page.count('class="dot chosen"') == 2
    far = write_report("advisor", {"base": "b", "dataset": "0" * 64, "examples": 3} | conclude(SPACE, [*trials, trial(3, 4, 0.2), trial(4, 4, 90.0)]))
    assert "\u2191 91.6" in far, "one loss far off is drawn at the edge with its figure"
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
