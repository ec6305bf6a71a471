"""What follows what for a fold: pure functions, no clock and no I/O.

Within an attempt a terminal event beats every other, and the first terminal in the log beats later ones;
among the others the higher delivery wins, then the higher rank. That order is total, so the projection commutes.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from datarun import events
from datarun.events import FoldEvent

MAX_DELIVERIES = 3
"""How often the platform loses one attempt before it gives up with cause `lost`."""
FORGIVEN = 20
"""So many deliveries that runners handed back do not count as lost; more are no coincidence."""


class Rank(IntEnum):
    """How far an attempt has come; terminal ranks are 8 and above."""

    REQUESTED = 0
    STARTED = 1
    TRAINED = 2
    LOST = 3
    HANDED_BACK = 4
    ERROR = 8
    TESTED = 9


FIRST_TERMINAL = Rank.ERROR

RANK_OF: dict[type[FoldEvent], Rank] = {
    events.FoldRequested: Rank.REQUESTED,
    events.FoldStarted: Rank.STARTED,
    events.FoldTrained: Rank.TRAINED,
    events.FoldLost: Rank.LOST,
    events.FoldHandedBack: Rank.HANDED_BACK,
    events.FoldFailed: Rank.ERROR,
    events.FoldCancelled: Rank.ERROR,
    events.FoldTested: Rank.TESTED,
}


class State(StrEnum):
    """A fold's state as people read it."""

    TODO = "TODO"
    STARTED = "STARTED"
    TRAINED = "TRAINED"
    TESTED = "TESTED"
    ERROR = "ERROR"


_STATES = {
    Rank.REQUESTED: State.TODO,
    Rank.STARTED: State.STARTED,
    Rank.TRAINED: State.TRAINED,
    Rank.LOST: State.TODO,
    Rank.HANDED_BACK: State.TODO,
    Rank.ERROR: State.ERROR,
    Rank.TESTED: State.TESTED,
}

Run = tuple[int, int, int]
"""(attempt, delivery, rank) of something that happened to a fold."""


def supersedes(new: Run, old: Run) -> bool:
    """Tell whether a run event, later in its partition than the one kept, takes its place."""
    return order(new) > order(old)


def order(run: Run) -> tuple[int, bool, int, int]:
    """Return the sort key of a run: all terminals of an attempt are equal, so the first one kept stays."""
    attempt, delivery, rank = run
    if rank >= FIRST_TERMINAL:
        return (attempt, True, 0, 0)
    return (attempt, False, delivery, rank)


def state_of(*, request_attempt: int, run_attempt: int, run_rank: int) -> State:
    """Return the state of a fold: that of its newest attempt, TODO while nothing happened to it."""
    if request_attempt > run_attempt:
        return State.TODO
    return _STATES[Rank(run_rank)]


def is_terminal(rank: int) -> bool:
    """Tell whether nothing more can happen in this attempt."""
    return rank >= FIRST_TERMINAL


def losses(delivery: int, *, handed_back: int) -> int:
    """Return how many deliveries are lost when this one is, given how many before it were handed back."""
    return delivery - min(handed_back, FORGIVEN)


def next_delivery(delivery: int, *, handed_back: int = 0) -> int | None:
    """Return the delivery to try after a lost one, or None when the platform gives up."""
    return delivery + 1 if losses(delivery, handed_back=handed_back) < MAX_DELIVERIES else None
