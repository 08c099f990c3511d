"""Ray as an engine: the results of the local one, in order, though workers die; a dataset with the same digest."""

import os
import signal
import sys
import time
from functools import partial

import pytest

from corpus_of_prepare import Given, distinct, pack
from metier.engines import LOCAL, EngineSettings, Local, Processes, Ray, engine_of, together
from metier.errors import InputError, MetierError
from metier.prepare import PrepareSettings, build
from metier.prepare import chunks as chunks_of
from metier.progress import SILENT, Silent
from metier.store import Store
from work_of_engines import die_on, die_once, double, meet, quote_data, refuse

ray = pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.fixture(scope="module")
def paths():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # workers import what this process can
        yield


@pytest.fixture(scope="module")
def engine(paths):
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield Ray(workers=2)
    ray.shutdown()


def test_ray_gives_the_same_as_local_in_order(engine):
    assert list(engine.map(double, range(40))) == list(LOCAL.map(double, range(40)))
    assert list(engine.map(double, [])) == []


def test_items_are_taken_lazily(engine):
    taken = []

    def counted():
        for number in range(100):
            taken.append(number)
            yield number

    results = engine.map(double, counted())
    assert next(results) == 0
    assert len(taken) <= 6
    results.close()


def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_doubled(engine, tmp_path):
    marker = tmp_path / "marker"
    assert list(engine.map(partial(die_once, marker), range(8))) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert marker.exists()


def test_a_piece_of_work_that_always_kills_its_worker_is_an_error(engine):
    with pytest.raises(MetierError, match="gave a piece of work up"):
        list(engine.map(partial(die_on, 1), range(3)))


def test_a_bug_is_named_by_type_and_place_and_a_refusal_by_its_message(engine):
    with pytest.raises(MetierError) as caught:
        list(engine.map(quote_data, [1]))
    assert "KeyError" in str(caught.value)
    assert "13800138000" not in str(caught.value)
    with pytest.raises(MetierError, match="the file is broken"):
        list(engine.map(refuse, [1]))


def test_a_dataset_has_the_digest_that_other_engines_give(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks_of, "CHUNK", 8)
    store = Store(tmp_path / ".metier")
    digests = {
        build(Given(distinct(60)), pack(), PrepareSettings(), ["zh", "en"], workspace=store.workspace(name), engine=made).digest
        for name, made in (("local", LOCAL), ("processes", Processes(2)), ("ray", engine))
    }
    assert len(digests) == 1


class Heard(Silent):
    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)


def test_workers_run_together_and_know_each_other_as_a_launcher_would_say(engine):
    heard = Heard()
    rank, process = together(engine, 2, meet, "", heard)
    assert rank == 0
    assert process != os.getpid()
    (said,) = heard.said
    assert said.startswith("0 of 2 at ")


@pytest.mark.parametrize(("what", "said"), [("killed", "worker 2 of 2 was lost.*\n.*start the same command again"), ("refused", "the file is broken")])
def test_one_of_several_workers_that_ends_stops_the_others(engine, what, said):
    began = time.monotonic()
    with pytest.raises(MetierError, match=said):
        together(engine, 2, meet, what, SILENT)
    assert time.monotonic() - began < 40


def test_workers_for_which_a_cluster_is_too_small_are_refused(engine):
    with pytest.raises(InputError, match="3 workers do not fit on a Ray of 2 processors"):
        together(engine, 3, meet, "", SILENT)


def test_settings_choose_the_engine():
    assert isinstance(engine_of(EngineSettings()), Local)
    assert engine_of(EngineSettings(), processes=3).count == 3
    made = engine_of(EngineSettings(kind="ray", processes=2))
    assert (made.address, made.workers) == (None, 2)
    assert engine_of(EngineSettings(kind="ray", address="auto")).workers is None
    assert engine_of(EngineSettings(kind="ray", training_workers=3)).workers == 3
    for unread in ({"address": "auto"}, {"training_workers": 2}):
        with pytest.raises(ValueError, match="engine ray only"):
            EngineSettings(**unread)


def test_an_address_where_nobody_answers_is_an_error():
    ray.shutdown()
    with pytest.raises(MetierError, match="no Ray could be reached"):
        list(Ray("127.0.0.1:1").map(double, [1]))


def test_what_a_signal_does_stays_what_it_was(paths):
    before = signal.getsignal(signal.SIGTERM)
    with Ray(workers=1).session():
        assert signal.getsignal(signal.SIGTERM) is before
