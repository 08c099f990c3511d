"""Engines keep the order, take items lazily, and turn a dead or failing child into a clear error."""

import os
from functools import partial

import pytest

from metier.engines import LOCAL, Processes
from metier.errors import MetierError
from work_of_engines import die_on, double, quote_data, refuse, slow_first


def counted(limit, taken):
    for number in range(limit):
        taken.append(number)
        yield number


def test_local_maps_lazily():
    taken = []
    results = LOCAL.map(double, counted(10, taken))
    assert next(results) == 0
    assert taken == [0]


def test_processes_give_the_same_as_local_in_order():
    assert list(Processes(2).map(double, range(9))) == list(LOCAL.map(double, range(9)))


def test_results_keep_the_order_though_the_first_is_slowest_and_use_several_processes():
    found = list(Processes(2).map(slow_first, range(4)))
    assert [item for item, _ in found] == [0, 1, 2, 3]
    assert len({pid for _, pid in found}) == 2
    assert os.getpid() not in {pid for _, pid in found}


def test_processes_take_no_more_items_than_they_work_on():
    taken = []
    results = Processes(2).map(double, counted(100, taken))
    next(results)
    assert len(taken) <= 4
    results.close()


def test_no_items_start_no_process():
    assert list(Processes(2).map(double, [])) == []


def test_a_killed_child_is_an_error_and_not_a_hang():
    with pytest.raises(MetierError, match="killed by signal 9"):
        list(Processes(2).map(partial(die_on, 3), range(8)))


def test_a_bug_in_a_child_is_named_by_type_and_place_but_not_by_its_text():
    with pytest.raises(MetierError) as caught:
        list(Processes(1).map(quote_data, [1]))
    assert "KeyError" in str(caught.value)
    assert "work_of_engines.py" in str(caught.value)
    assert "13800138000" not in str(caught.value)


def test_an_error_raised_on_purpose_keeps_its_message():
    with pytest.raises(MetierError, match="the file is broken"):
        list(Processes(1).map(refuse, [1]))


def test_the_children_end_when_the_caller_stops():
    results = Processes(2).map(slow_first, range(100))
    pids = {next(results)[1] for _ in range(4)}
    results.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_less_than_one_process_is_refused():
    with pytest.raises(MetierError, match="at least 1"):
        Processes(0)
