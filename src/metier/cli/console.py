"""What the command line shows: results on stdout, progress and messages on stderr, live on a terminal and line by line when piped."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Display
from rich.text import Text

from metier.progress import Progress

__all__ = ["Bars", "Lines", "clean", "errors", "output", "reporting", "span"]

_SECONDS_BETWEEN_LINES = 10.0
_WIDTH_WHEN_PIPED = 200
# C0 but tab and line feed, DEL, C1 (ISO 6429); the embeddings, overrides and isolates of UAX #9.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def output() -> Console:
    """Return the console of results: stdout. Text is taken literally; markup in data has no effect."""
    return _console(sys.stdout)


def errors() -> Console:
    """Return the console of progress and messages: stderr."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() else _WIDTH_WHEN_PIPED
    return Console(file=stream, width=width, markup=False, emoji=False, highlight=False, soft_wrap=not stream.isatty())


def clean(text: str) -> str:
    """Return text with control characters (but line ends and tabs) and direction overrides made visible: data must not steer the terminal."""
    return _STEERING.sub("\ufffd", text)


def span(seconds: float) -> str:
    """Return a time span as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@dataclass(slots=True)
class _Clock:
    """One task's progress. Its rate is measured from the first report on, which may hold what an earlier run had done."""

    task: str
    total: float | None
    unit: str
    began: float
    done: float = 0.0
    note: str = ""
    shown: float = 0.0
    first: tuple[float, float] | None = field(default=None)
    last: float = 0.0

    def advance(self, amount: float, note: str, now: float) -> None:
        self.done += amount
        self.note = note or self.note
        self.last = now
        if self.first is None:
            self.first = (now, self.done)

    def left(self, now: float) -> float | None:
        """Return the seconds that are left at the rate so far, None while nothing can be said."""
        if self.total is None or self.first is None or self.done <= self.first[1] or self.last <= self.first[0]:
            return None
        rate = (self.done - self.first[1]) / (self.last - self.first[0])
        return max(0.0, (self.total - self.done) / rate - (now - self.last))

    def counts(self) -> str:
        total = "" if self.total is None else f"/{self.total:.0f}"
        return f"{self.done:.0f}{total} {self.unit}".rstrip()

    def timing(self, now: float) -> str:
        left = self.left(now)
        return f"{span(now - self.began)} elapsed, {'time left not known yet' if left is None else f'{span(left)} left'}"


class _Clocks:
    """The tasks that are under way, by name. What both ways of showing progress share."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.running: dict[str, _Clock] = {}

    def start(self, task: str, total: float | None, unit: str) -> _Clock:
        now = self.now()
        clock = _Clock(clean(task), total, unit, began=now, shown=now)
        self.running[task] = clock
        return clock

    def advance(self, task: str, amount: float, note: str) -> _Clock:
        clock = self.running.get(task) or self.start(task, None, "")
        clock.advance(amount, clean(note), self.now())
        return clock

    def finish(self, task: str, note: str) -> str | None:
        """End a task and return its last line, None if it was not under way."""
        clock = self.running.pop(task, None)
        if clock is None:
            return None
        counted = f"{clock.counts()} in " if clock.done else ""
        return f"{clock.task}: {counted}{span(self.now() - clock.began)}" + (f", {clean(note)}" if note else "")


class Lines:
    """Progress for a pipe or a log: at most a line a task every ten seconds, one at its end, no control characters."""

    def __init__(self, console: Console, *, now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clocks = _Clocks(now)

    def start(self, task: str, total: float | None = None, unit: str = "") -> None:
        """Begin a task; nothing is written yet."""
        self._clocks.start(task, total, unit)

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Write a line if the task's last one is ten seconds old."""
        clock = self._clocks.advance(task, amount, note)
        now = self._clocks.now()
        if now - clock.shown >= _SECONDS_BETWEEN_LINES:
            clock.shown = now
            self._console.print(f"{clock.task}: {clock.counts()}, {clock.timing(now)}" + (f", {clock.note}" if clock.note else ""))

    def finish(self, task: str, note: str = "") -> None:
        """Write the task's last line."""
        if line := self._clocks.finish(task, note):
            self._console.print(line)

    def say(self, message: str) -> None:
        """Write a line."""
        self._console.print(clean(message))


class _Counts(ProgressColumn):
    """What is done of how much, the time that passed, the time left and the live figure."""

    def render(self, task: Task) -> Text:
        clock: _Clock = task.fields["clock"]
        parts = [clock.counts(), clock.timing(time.monotonic()), clock.note]
        return Text(", ".join(part for part in parts if part))


class Bars:
    """Progress on a terminal: a live bar a task; a finished task leaves one line behind."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._clocks = _Clocks()
        self._bars: dict[str, TaskID] = {}
        self._display = Display(TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), _Counts(), console=console, transient=True)

    def __enter__(self) -> Bars:
        """Take over the last lines of the terminal."""
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give the terminal back."""
        self._display.stop()

    def start(self, task: str, total: float | None = None, unit: str = "") -> None:
        """Show a bar for the task."""
        self._drop(task)
        clock = self._clocks.start(task, total, unit)
        self._bars[task] = self._display.add_task(clock.task, total=total, clock=clock)

    def advance(self, task: str, amount: float = 1.0, note: str = "") -> None:
        """Move the task's bar."""
        if task not in self._bars:
            self.start(task)
        clock = self._clocks.advance(task, amount, note)
        self._display.update(self._bars[task], completed=clock.done)

    def finish(self, task: str, note: str = "") -> None:
        """Turn the bar into a line."""
        self._drop(task)
        if line := self._clocks.finish(task, note):
            self._console.print(line, style="green")

    def say(self, message: str) -> None:
        """Write a line above the bars."""
        self._console.print(clean(message))

    def _drop(self, task: str) -> None:
        if (bar := self._bars.pop(task, None)) is not None:
            self._display.remove_task(bar)


@contextmanager
def reporting() -> Iterator[Progress]:
    """Yield the progress that suits stderr: live bars on a terminal, lines elsewhere."""
    console = errors()
    if console.is_terminal:
        with Bars(console) as bars:
            yield bars
    else:
        yield Lines(console)
