"""Functions that worker processes import: a test module itself cannot be imported by a child."""

import os
import signal
import time

from metier.errors import SourceError


def double(item):
    return item * 2


def slow_first(item):
    time.sleep(0.2 if item == 0 else 0)
    return item, os.getpid()


def die_on(bad, item):
    if item == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def die_once(marker, item):
    """Kill this worker the first time that item 3 comes; count every call that ends."""
    if item == 3 and not marker.exists():
        marker.write_text("died")
        os.kill(os.getpid(), signal.SIGKILL)
    return item * 2


def quote_data(item):
    raise KeyError("13800138000")


def refuse(item):
    raise SourceError("the file is broken")


def meet(what, progress):
    """Say who this worker is; the worker `what` of them is killed, refuses, or waits for nobody."""
    rank = int(os.environ["RANK"])
    progress.say(f"{rank} of {os.environ['WORLD_SIZE']} at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
    if what == "killed" and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "refused" and rank == 0:
        raise SourceError("the file is broken")
    if what in {"killed", "refused"}:
        time.sleep(60)
    return rank, os.getpid()
