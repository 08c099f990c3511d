"""Progress as lines and as bars: what is written, how often, and how the time left is told."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from metier.cli.console import Bars, Lines, span


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.value = 100.0

    def __call__(self) -> float:
        return self.value


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO, clock: Time) -> Lines:
    return Lines(Console(file=stream, width=200, markup=False, highlight=False), now=clock)


def test_a_span_is_told_in_minutes_and_hours() -> None:
    assert [span(value) for value in (0.4, 59.6, 61, 3600 + 23 * 60 + 4)] == ["0:00", "1:00", "1:01", "1:23:04"]


def test_at_most_a_line_every_ten_seconds_and_one_at_the_end(lines: Lines, stream: io.StringIO, clock: Time) -> None:
    lines.start("training", 60, "steps")
    for step in range(60):
        clock.value += 0.5
        lines.advance("training", 1, f"loss {step}")
    lines.finish("training", "loss 59")
    assert stream.getvalue().splitlines() == [
        "training: 20/60 steps, 0:10 elapsed, 0:20 left, loss 19",
        "training: 40/60 steps, 0:20 elapsed, 0:10 left, loss 39",
        "training: 60/60 steps, 0:30 elapsed, 0:00 left, loss 59",
        "training: 60/60 steps in 0:30, loss 59",
    ]


def test_what_an_earlier_run_had_done_does_not_count_as_speed(lines: Lines, stream: io.StringIO, clock: Time) -> None:
    lines.start("training", 1000, "steps")
    lines.advance("training", 900, "resumed")
    for _ in range(10):
        clock.value += 1
        lines.advance("training", 1)
    assert stream.getvalue() == "training: 910/1000 steps, 0:10 elapsed, 1:30 left, resumed\n"


def test_a_task_of_unknown_length_tells_no_time_left(lines: Lines, stream: io.StringIO, clock: Time) -> None:
    lines.start("refine", None, "rows")
    clock.value += 11
    lines.advance("refine", 256)
    assert stream.getvalue() == "refine: 256 rows, 0:11 elapsed, time left not known yet\n"


def test_lines_hold_no_control_characters_and_no_markup(lines: Lines, stream: io.StringIO) -> None:
    lines.say("[red]春\x1b[31m\r夏")
    assert stream.getvalue() == "[red]春\ufffd[31m\ufffd夏\n"


def test_bars_show_counts_and_leave_one_line_a_task_behind() -> None:
    stream = io.StringIO()
    with Bars(Console(file=stream, width=160, force_terminal=True, color_system=None, markup=False, highlight=False)) as bars:
        bars.start("training", 4, "steps")
        bars.advance("training", 1, "loss 2")
        bars._display.refresh()
        bars.advance("training", 3, "loss 1")
        bars.finish("training", "loss 1")
        bars.say("那么")
    written = stream.getvalue()
    assert "1/4 steps, 0:00 elapsed, " in written
    assert "training: 4/4 steps in 0:00, loss 1\n" in written
    assert "那么\n" in written
