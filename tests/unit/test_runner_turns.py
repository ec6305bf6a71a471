"""Whose turn it is: priority, and the share that nobody can be pushed out of."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runner.turns import ASKED, PRIORITY, SHARE, Turns


def start(turns, waiting):
    """Ask the queues as a runner does and return the one the next start is taken from."""
    queue = next((name for name in turns.order() if name in waiting), None)
    turns.took(queue)
    return queue


def test_priority_decides_while_nobody_has_waited_long():
    """High before data before low, however the options named them."""
    turns = Turns(["L", "data", "H"])
    assert turns.order() == PRIORITY
    assert start(turns, {"L", "H"}) == "H"
    assert start(turns, {"L", "data"}) == "data"


def test_low_gets_one_start_in_eight_of_endless_high():
    """And never more: high keeps seven of eight."""
    turns = Turns(PRIORITY)
    starts = [start(turns, {"H", "L"}) for _ in range(10 * SHARE)]
    assert starts == ([*["H"] * (SHARE - 1), "L"]) * 10


def test_a_new_high_fold_is_next_however_long_high_was_busy_before():
    """Nothing ages in an empty queue: low's turn that found nothing begins anew."""
    turns = Turns(PRIORITY)
    for _ in range(100 * SHARE):
        start(turns, {"H"})
    start(turns, {"L"})
    assert start(turns, {"H", "L"}) == "H"


def test_work_that_is_slow_to_arrive_keeps_its_turn():
    """A queue is asked first so many times before it is believed to be empty."""
    turns = Turns(["H", "L"])
    for _ in range(SHARE - 1):
        start(turns, {"H", "L"})
    asked_first = []
    for _ in range(ASKED + 1):
        asked_first.append(turns.order()[0])
        turns.took("H")
    assert asked_first == [*["L"] * ASKED, "H"]


@pytest.mark.parametrize("waiting", [{"H", "data", "L"}, {"data", "L"}, {"H", "data"}])
def test_no_queue_is_starved_by_those_before_it(waiting):
    """Endless work everywhere: each queue that waits gets its share."""
    turns = Turns(PRIORITY)
    counts = Counter(start(turns, waiting) for _ in range(SHARE * 9))
    assert min(counts[name] for name in waiting) >= SHARE


@given(st.lists(st.sets(st.sampled_from(PRIORITY)), max_size=200))
def test_who_waits_through_nine_starts_is_among_them(loads):
    """Whatever came and went before, and whatever else waits."""
    turns = Turns(PRIORITY)
    passed = dict.fromkeys(PRIORITY, 0)
    for waiting in loads:
        taken = start(turns, waiting)
        assert taken is None if not waiting else taken in waiting
        passed = {name: passed[name] + 1 if name in waiting - {taken} else 0 for name in PRIORITY}
        assert max(passed.values()) <= SHARE


def test_a_runner_of_one_queue_asks_that_one():
    """No other name ever comes up."""
    turns = Turns(["L"])
    assert {start(turns, {"H", "L"}) for _ in range(20)} == {"L"}
