import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from metier.errors import ModelError
from metier.evaluation.ask import ask
from metier.evaluation.items import Item, Task, conversation
from metier.models.interface import Likelihood
from metier.packs.spec import Metric
from metier.testing import ScriptedModel


class Counting(ScriptedModel):
    """Counts how often each prompt is asked."""

    def __init__(self):
        super().__init__(lambda prompt: prompt[-1].content.upper())
        self.asked = []

    def generate(self, prompts, settings, **rest):
        self.asked += [prompt[-1].content for prompt in prompts]
        return super().generate(prompts, settings, **rest)


class Progress:
    def __init__(self):
        self.units = 0.0

    def start(self, task, total=None, unit=""):
        self.total = total

    def advance(self, task, amount=1.0, note=""):
        self.units += amount

    def finish(self, task, note=""):
        pass

    def say(self, message):
        pass


def task_of(count: int) -> Task:
    items = tuple(Item(f"i{number}", "en", conversation(f"question {number} 题"), "x") for number in range(count))
    return Task("t", "generate", items, (Metric(metric="chrf"),))


def answer_file(folder: Path) -> Path:
    return next((folder / "answers").rglob("*.jsonl"))


def test_answers_come_by_item_and_a_second_call_asks_nothing(tmp_path: Path):
    model, progress = Counting(), Progress()
    first = ask(model, task_of(7), "tuned", tmp_path, batch=3, progress=progress)
    assert first["i4"].text == "QUESTION 4 题"
    assert sorted(model.asked) == sorted(f"question {number} 题" for number in range(7))
    assert progress.units == progress.total == 7
    again = Counting()
    assert ask(again, task_of(7), "tuned", tmp_path, batch=3) == first
    assert again.asked == []


def test_the_sides_are_kept_apart(tmp_path: Path):
    ask(Counting(), task_of(2), "base", tmp_path, batch=3)
    model = Counting()
    ask(model, task_of(2), "tuned", tmp_path, batch=3)
    assert len(model.asked) == 2


def test_a_torn_last_line_is_cut_off_and_its_item_asked_again(tmp_path: Path):
    whole = ask(Counting(), task_of(5), "tuned", tmp_path, batch=5)
    path = answer_file(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    model = Counting()
    assert ask(model, task_of(5), "tuned", tmp_path, batch=5) == whole
    assert len(model.asked) == 1
    assert sorted(path.read_bytes().splitlines()) == sorted(data.splitlines())


def test_an_answer_to_another_prompt_or_a_damaged_line_is_not_taken_over(tmp_path: Path):
    ask(Counting(), task_of(3), "tuned", tmp_path, batch=5)
    path = answer_file(tmp_path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["prompt_hash"] = "0" * 64
    del rows[1]["text"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = Counting()
    ask(model, task_of(3), "tuned", tmp_path, batch=5)
    assert len(model.asked) == 2


def test_probabilities_that_are_no_numbers_are_an_error_and_zero_probability_is_kept_finite(tmp_path: Path):
    class Broken(ScriptedModel):
        def choose(self, prompts, choices, **rest):
            return [[Likelihood(value, 1) for value in (float("-inf"), self.value)] for _ in prompts]

    task = Task("c", "choose", (Item("a", "en", conversation("q"), "x", ("x", "y")),), (Metric(metric="acc"),))
    model = Broken(lambda prompt: "")
    model.value = -1.0
    assert ask(model, task, "tuned", tmp_path, batch=1)["a"].likelihoods == ((-1e9, 1), (-1.0, 1))
    model.value = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        ask(model, task, "base", tmp_path, batch=1)


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_ask import Counting, task_of
from metier.evaluation.ask import ask

folder, stop = Path(sys.argv[1]), int(sys.argv[2])

class Killed(Counting):
    def generate(self, prompts, settings, **rest):
        with (folder / "asked.txt").open("a") as stream:
            stream.write("".join(prompt[-1].content + chr(10) for prompt in prompts))
        if len((folder / "asked.txt").read_text().splitlines()) > stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(prompts, settings, **rest)

ask(Killed(), task_of(20), "tuned", folder, batch=4)
"""


def test_after_a_kill_only_the_batch_under_way_is_asked_again(tmp_path: Path):
    script = textwrap.dedent(CHILD).format(here=str(Path(__file__).parent))
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path), "10"], env=os.environ, check=False)
    assert died.returncode == -signal.SIGKILL
    # Batches of 4: two are finished, the third dies while being asked.
    assert len(answer_file(tmp_path).read_bytes().splitlines()) == 8
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), "1000"], env=os.environ, check=False)
    assert done.returncode == 0
    asked = (tmp_path / "asked.txt").read_text().splitlines()
    assert len(asked) == 24
    assert len(set(asked)) == 20
    assert len(answer_file(tmp_path).read_bytes().splitlines()) == 20
