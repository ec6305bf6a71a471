"""What follows what for a fold, whatever order it is seen in."""

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datarun.lifecycle import FORGIVEN, Rank, State, next_delivery, state_of, supersedes

RUNS = st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from([rank for rank in Rank if rank]))


def kept(runs):
    """Return the run that stays after seeing runs in order."""
    return reduce(lambda old, new: new if supersedes(new, old) else old, runs, (0, 0, 0))


def test_the_first_terminal_of_an_attempt_wins():
    """A late failure of a lost delivery changes nothing after the fold was tested."""
    assert kept([(1, 1, Rank.STARTED), (1, 2, Rank.TESTED), (1, 1, Rank.ERROR), (1, 3, Rank.TESTED)]) == (
        1,
        2,
        Rank.TESTED,
    )


def test_a_new_attempt_takes_the_place_of_a_terminal_one():
    """Forcing a fold makes its old result history."""
    assert kept([(1, 1, Rank.TESTED), (2, 1, Rank.STARTED), (1, 2, Rank.ERROR)]) == (2, 1, Rank.STARTED)


def test_a_later_delivery_takes_the_place_of_what_an_earlier_one_had_trained():
    """Progress of a lost delivery is not the next one's."""
    assert kept([(1, 1, Rank.TRAINED), (1, 1, Rank.LOST), (1, 2, Rank.STARTED)]) == (1, 2, Rank.STARTED)


@given(st.lists(RUNS, min_size=1, max_size=8), st.randoms())
def test_duplicates_change_nothing(runs, random):
    """Seeing any of the events again gives the same result."""
    doubled = []
    for index, run in enumerate(runs):
        doubled += [run, *(random.choice(runs[: index + 1]) for _ in range(2))]
    assert kept(doubled) == kept(runs)


@pytest.mark.parametrize(
    ("request_attempt", "run_attempt", "rank", "state"),
    [
        (1, 0, Rank.REQUESTED, State.TODO),
        (1, 1, Rank.STARTED, State.STARTED),
        (1, 1, Rank.LOST, State.TODO),
        (1, 1, Rank.HANDED_BACK, State.TODO),
        (2, 1, Rank.TESTED, State.TODO),
        (1, 1, Rank.TESTED, State.TESTED),
        (0, 1, Rank.ERROR, State.ERROR),
    ],
)
def test_the_state_is_that_of_the_newest_attempt(request_attempt, run_attempt, rank, state):
    """A request that is newer than every run reads TODO."""
    assert state_of(request_attempt=request_attempt, run_attempt=run_attempt, run_rank=rank) is state


def test_the_platform_gives_up_after_three_deliveries():
    """A fold that kills its runners does not go round for ever."""
    assert [next_delivery(delivery) for delivery in (1, 2, 3)] == [2, 3, None]


def test_what_was_handed_back_does_not_count_as_lost():
    """A fold that met stopping runners still has three losses before it, but nothing goes round for ever."""
    assert [next_delivery(delivery, handed_back=2) for delivery in (3, 4, 5)] == [4, 5, None]
    assert next_delivery(3 + FORGIVEN, handed_back=1_000_000) is None
