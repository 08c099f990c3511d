"""The rules of the decision at their edges, overrides, and what is said when this version cannot do it."""

from __future__ import annotations

import pytest

from metier.models.methods import METHODS
from metier.training.planning.decide import Aims, Situation, decide, resources_of
from metier.training.planning.intervals import mean_interval, share_interval
from metier.training.planning.methods import available

KEEP, FREE = Aims(general=True), Aims(general=False)


def here(examples: int, *, accelerator: bool = True, memory: int = 100, full_bytes: int = 50, full_hours: float = 1.0) -> Situation:
    return Situation(examples, accelerator, memory, full_bytes, full_hours)


@pytest.mark.parametrize(
    ("situation", "aims", "method", "rank", "besides"),
    [
        (here(50_001), KEEP, "full", 16, ()),
        (here(50_000), KEEP, "qlora", 16, ("augmentation",)),
        (here(50_001, full_bytes=101), KEEP, "qlora", 16, ("augmentation",)),
        (here(50_001, full_hours=25.0), KEEP, "qlora", 16, ("augmentation",)),
        (here(50_001, accelerator=False), KEEP, "full", 16, ()),
        (here(50_001, accelerator=False, full_hours=25.0), KEEP, "lora", 32, ()),
        (here(9_999, accelerator=False), KEEP, "lora", 16, ()),
        (here(10_000, accelerator=False), KEEP, "lora", 32, ()),
        (here(499), KEEP, "lora", 8, ("regularisation",)),
        (here(249, accelerator=False), KEEP, "lora", 4, ("regularisation",)),
        (here(499), FREE, "qlora", 16, ("augmentation",)),
        (here(499, accelerator=False), FREE, "lora", 16, ()),
        (here(500), KEEP, "qlora", 16, ("augmentation",)),
    ],
)
def test_the_rules(situation: Situation, aims: Aims, method: str, rank: int, besides: tuple[str, ...]) -> None:
    found = decide(situation, aims, methods=tuple(METHODS))
    assert (found.method.name, found.method.rank, found.besides) == (method, rank, besides)
    assert found.trains == found.method
    assert found.reasons
    assert not found.overridden


def test_an_override_is_followed_and_the_rule_is_still_said() -> None:
    found = decide(here(100_000), Aims(general=True, method="dora", rank=12), methods=tuple(METHODS))
    assert (found.method.name, found.method.rank, found.overridden) == ("dora", 12, True)
    assert "You asked for dora; by the rules it would be full." in found.reasons
    assert "Rank 12 was given; by the rules it would be 16." in found.reasons


def test_what_cannot_be_trained_here_is_said_with_the_nearest_that_can() -> None:
    found = decide(here(100_000), KEEP, methods=("lora",))
    assert found.method.name == "full"
    assert (found.trains.name, found.trains.rank, found.trains.targets) == ("lora", 32, "all-linear")
    assert found.notes[0].startswith("full cannot be trained here. The nearest that can: lora of rank 32 on all linear layers")
    assert set(METHODS) - set(available()) <= {"qlora"}
    quantised = decide(here(10_000), KEEP, methods=("lora", "full"))
    assert "pip install 'metier[qlora]'" in quantised.notes[0]


def test_resources_are_those_of_a_full_training_in_the_time_that_is_allowed() -> None:
    assert resources_of(here(1, full_hours=3.0), Aims(general=True, hours=3.0)) == "ample"
    assert resources_of(here(1, full_hours=3.1), Aims(general=True, hours=3.0)) == "some"
    assert resources_of(here(1, full_bytes=101, accelerator=False), KEEP) == "none"


def test_intervals_of_shares_and_of_ratios() -> None:
    # Wilson's interval of 8 of 10: .490 to .943 (Brown, Cai and DasGupta 2001, formula 4).
    found = share_interval(8, 10)
    assert (found.value, round(found.low, 3), round(found.high, 3)) == (0.8, 0.490, 0.943)
    assert share_interval(0, 10).low == 0.0
    assert share_interval(0, 10).high == pytest.approx(0.278, abs=1e-3)
    ratio = mean_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert ratio.value == ratio.low == ratio.high == 2.0
    wide = mean_interval([0.0, 1.0] * 20, [1.0] * 40)
    assert wide.low < 0.5 < wide.high
    assert wide.high - wide.low == pytest.approx(0.31, abs=0.04)
