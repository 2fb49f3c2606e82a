"""Engines do tasks in the order that they need, and an error is an outcome."""

from __future__ import annotations

from operator import floordiv, mul

import pytest

from monai_cae.cluster.engine import InProcess, NotDone, Task


def test_tasks_are_done_and_an_error_stops_only_what_needs_it():
    tasks = [
        Task("six", mul, (2, 3)),
        Task("broken", floordiv, (1, 0)),
        Task("after", mul, (1, 1), after=("six", "broken")),
        Task("and after that", mul, (1, 1), after=("after",)),
        Task("ten", mul, (2, 5), after=("six",)),
    ]
    with InProcess() as engine:
        done = {one.key: one for one in engine.run(tasks)}
    assert list(done) == [task.key for task in tasks]
    assert (done["six"].value, done["ten"].value, done["six"].error) == (6, 10, None)
    assert isinstance(done["broken"].error, ZeroDivisionError)
    assert isinstance(done["after"].error, NotDone) and str(done["after"].error) == "broken"
    assert isinstance(done["and after that"].error, NotDone) and str(done["and after that"].error) == "after"


def test_a_task_may_depend_on_what_is_done():
    known: list[int] = []

    def tasks():
        yield Task("first", mul, (2, 3))
        yield Task("second", mul, (known[0], 7))

    for one in InProcess().run(tasks()):
        known.append(one.value)
    assert known == [6, 42]


def test_what_can_never_be_known_is_told():
    with pytest.raises(RuntimeError, match="never given"):
        list(InProcess().run([None]))
