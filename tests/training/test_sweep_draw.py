"""Which trials are made, and when one is given up: functions of the seed and of what is known, nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metier.training import SweepSettings, TrainingSettings
from metier.training.sweep.draw import draw, importance, is_grid, planned_trials, settled
from metier.training.sweep.hopeless import Rule
from metier.training.sweep.space import Choices, Range, Space
from metier.training.sweep.trials import Journal, Trial

SPACE = Space(TrainingSettings(), (Range("learning_rate", 1e-4, 1e-2, True, False), Choices("adaptation.rank", (1, 2, 4, 8)), Choices("batch.rows", (1, 2))))
SWEEP = SweepSettings(trials=30)


def ended(trial: Trial, loss: float, *, losses: tuple[float, ...] = (), state: str = "complete") -> Trial:
    return replace(trial, outcome={"state": state, "value": loss, "course": list(losses or (loss,)), "examples": [], "reason": None})


def searched(sweep: SweepSettings, count: int, loss: Any) -> list[Trial]:
    trials: list[Trial] = []
    for number in range(count):
        values = draw(number, SPACE, sweep, trials)
        trials.append(ended(Trial(number, values), loss(values)))
    return trials


def hilly(values: dict[str, Any]) -> float:
    """A loss whose best is a rank of 4 and a rate near 0.003; rows change nothing."""
    return abs(values["adaptation.rank"] - 4) + 300 * abs(values["learning_rate"] - 0.003)


def test_the_same_seed_gives_the_same_trials_and_another_seed_others() -> None:
    first = searched(SWEEP, 12, hilly)
    assert first == searched(SWEEP, 12, hilly)
    assert [trial.values for trial in first] != [trial.values for trial in searched(SweepSettings(trials=30, seed=1), 12, hilly)]


def test_a_trial_is_the_same_whatever_was_done_since() -> None:
    trials = searched(SWEEP, 12, hilly)
    for number in (0, 3, 11):
        assert draw(number, SPACE, SWEEP, trials[:number]) == trials[number].values


def test_the_search_closes_in_on_what_is_good() -> None:
    trials = searched(SWEEP, 30, hilly)
    early, late = trials[:8], trials[20:]
    assert sum(trial.value for trial in late) / len(late) < 0.6 * sum(trial.value for trial in early) / len(early)
    best = min(trials, key=lambda trial: trial.value)
    assert best.values["adaptation.rank"] == 4
    assert 0.001 < best.values["learning_rate"] < 0.006


def test_no_combination_is_tried_twice() -> None:
    small = Space(TrainingSettings(), (Choices("adaptation.rank", (1, 2, 4)), Choices("batch.rows", (1, 2, 3))))
    sweep = SweepSettings(trials=8)
    trials: list[Trial] = []
    for number in range(8):
        values = draw(number, small, sweep, trials)
        trials.append(ended(Trial(number, values), float(values["adaptation.rank"])))
    assert len({str(trial.values) for trial in trials}) == 8


def test_a_small_space_is_tried_whole_in_an_order_of_the_seed() -> None:
    small = Space(TrainingSettings(), (Choices("adaptation.rank", (1, 2, 4)), Choices("batch.rows", (1, 2))))
    assert is_grid(small, SWEEP)
    assert planned_trials(small, SWEEP) == 6
    drawn = [draw(number, small, SWEEP, []) for number in range(6)]
    assert sorted(map(str, drawn)) == sorted(map(str, small.grid()))
    assert drawn != list(small.grid())
    assert not is_grid(small, SweepSettings(trials=5))


def test_trials_that_run_beside_each_other_do_not_know_each_other() -> None:
    sweep = SweepSettings(trials=30, parallel=3)
    trials = searched(sweep, 12, hilly)
    assert [trial.number for trial in settled(11, sweep, trials)] == list(range(9))
    # Whichever of its neighbours has ended by then, and how: the same trial.
    neighbours = [*trials[:9], replace(trials[9], outcome=None), ended(trials[10], 0.0)]
    assert draw(11, SPACE, sweep, neighbours) == trials[11].values


def test_a_trial_above_the_median_is_given_up_once_enough_have_ended() -> None:
    values = {"learning_rate": 0.001, "adaptation.rank": 4, "batch.rows": 1}
    known = tuple(ended(Trial(number, values), loss, losses=(loss + 1, loss, loss)) for number, loss in enumerate((1.0, 2.0, 3.0)))
    rule = Rule("median", SPACE, values, known, times=4, warmup=3)
    assert rule.judge(3, [99.0]) is None, "nothing is said in the first half"
    assert rule.judge(3, [2.9, 2.1]) == "worse than the median of trials no larger at validation 2 of 4"
    assert rule.judge(3, [2.9, 2.0]) is None
    assert rule.judge(3, [1.5, 2.5]) is None, "the best loss so far counts"
    assert replace(rule, warmup=4).judge(3, [99.0, 99.0]) is None
    assert replace(rule, kind="none").judge(3, [99.0, 99.0]) is None


def test_a_small_rank_is_not_given_up_for_what_larger_ones_can_do() -> None:
    small, large = ({"learning_rate": 0.001, "adaptation.rank": rank, "batch.rows": 1} for rank in (1, 8))
    known = tuple(ended(Trial(number, large), 1.0, losses=(2.0, 1.0)) for number in range(4))
    assert Rule("median", SPACE, small, known, times=3, warmup=1).judge(4, [9.0, 9.0]) is None
    known = tuple(ended(Trial(number, small), 1.0, losses=(2.0, 1.0)) for number in range(4))
    assert Rule("median", SPACE, large, known, times=3, warmup=1).judge(4, [9.0, 9.0]) is not None, "a large one has to be better than small ones"


def test_hyperband_lets_a_third_of_a_bracket_go_on() -> None:
    trials: list[Trial] = []
    verdicts = []
    for number in range(18):
        loss = float((number * 7) % 18)
        values = draw(number, SPACE, SWEEP, trials)
        rule = Rule("hyperband", SPACE, values, tuple(trials), times=9, warmup=1)
        losses, reason = [], None
        while reason is None and len(losses) < 9:
            losses.append(loss)
            reason = rule.judge(number, losses) if len(losses) < 9 else None
        verdicts.append((loss, len(losses)))
        trials.append(ended(Trial(number, values), loss, losses=tuple(losses), state="pruned" if reason else "complete"))
    lengths = {length for _, length in verdicts}
    assert {1, 9} <= lengths, "some are given up at once, some are trained whole"
    whole = [loss for loss, length in verdicts if length == 9]
    given_up = [loss for loss, length in verdicts if length < 9]
    assert sum(whole) / len(whole) < sum(given_up) / len(given_up)


def test_what_mattered_is_told_from_ten_trials_on() -> None:
    trials = searched(SWEEP, 20, hilly)
    shares = importance(SPACE, trials)
    assert list(shares)[-1] == "batch.rows", "rows change nothing"
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares == importance(SPACE, trials)
    assert importance(SPACE, trials[:9]) == {}


def test_the_journal_gives_back_what_was_written_and_survives_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    first = Trial(0, {"learning_rate": 0.00123, "adaptation.rank": 4, "batch.rows": 2})
    second = Trial(1, {"learning_rate": 0.0005, "adaptation.rank": 1, "batch.rows": 1})
    journal = Journal(path, SPACE)
    journal.begin(first)
    done = ended(first, 0.1 + 0.2, losses=(0.5, 0.1 + 0.2))
    journal.end(done)
    journal.begin(second)
    with path.open("ab") as stream:
        stream.write(b'{"op_code": 6, "worker')
    (tmp_path / "journal.log.lock").touch()
    again = Journal(path, SPACE)
    assert again.trials() == [done, second]
    again.end(ended(second, 2.0, state="pruned"))
    assert [trial.state for trial in Journal(path, SPACE).trials()] == ["complete", "pruned"]
