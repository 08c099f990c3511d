"""Ray as an engine: the results of the local one, in order, though workers die; a dataset with the same digest."""

import os
import sys
from functools import partial

import pytest

from corpus_of_prepare import Given, distinct, pack
from metier.engines import LOCAL, EngineSettings, Local, Processes, Ray, engine_of
from metier.errors import MetierError
from metier.prepare import PrepareSettings, build
from metier.prepare import chunks as chunks_of
from metier.store import Store
from work_of_engines import die_on, die_once, double, quote_data, refuse

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


def test_settings_choose_the_engine():
    assert isinstance(engine_of(EngineSettings()), Local)
    assert engine_of(EngineSettings(), processes=3).count == 3
    made = engine_of(EngineSettings(kind="ray", processes=2))
    assert (made.address, made.workers) == (None, 2)
    assert engine_of(EngineSettings(kind="ray", address="auto")).workers is None
    with pytest.raises(ValueError, match="engine ray only"):
        EngineSettings(address="auto")


def test_an_address_where_nobody_answers_is_an_error():
    ray.shutdown()
    with pytest.raises(MetierError, match="no Ray could be reached"):
        list(Ray("127.0.0.1:1").map(double, [1]))
