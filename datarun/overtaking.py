"""Which waiting requests were overtaken: pure rules over broker timestamps; no clock of any machine is asked.

A queue hands its records out in order. Whenever it handed out a later one, or a runner with a free slot asked it, a
waiting request was missed: somebody has it locked, or it is gone. A lock lasts 15 s, so one lock explains one miss of
those further apart, and four of them a minute or more in which nobody began it. While all runners are busy nothing is
missed, however long a request waits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import NamedTuple

PATIENCE_SECONDS = 60.0
"""The least time from a request's first miss to the one that calls it overtaken; doubled each time, up to an hour."""
MISSES = 4
"""So many misses, each a third of the patience after the one before: longer than a record's lock."""
LONGEST_DOUBLINGS = 6
REMEMBERED = 10_000


class Waiting(NamedTuple):
    """A request that nobody has begun, where it was last appended, and since when (broker's ms)."""

    fold_id: int
    attempt: int
    delivery: int
    queue: str
    offset: int
    since_ms: int


class Chance(NamedTuple):
    """A queue handed out the request at an offset or, where it is None, was asked by a free runner; broker's ms."""

    queue: str
    offset: int | None
    at_ms: int


class _Missed(NamedTuple):
    times: int
    last_ms: int


class Overtaking:
    """Counts misses; `restart` it whenever the log was away."""

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._apart_ms = patience_seconds * 1000 / (MISSES - 1)
        self._missed: dict[Waiting, _Missed] = {}
        self._put_back: OrderedDict[tuple[int, int, int], int] = OrderedDict()

    def restart(self) -> None:
        """Forget every miss; how often a request was put back is remembered."""
        self._missed.clear()

    def overtaken(self, waiting: Iterable[Waiting], chances: Collection[Chance]) -> list[Waiting]:
        """Return the requests to put back into their queue, in its order, given what was seen before they waited."""
        self._missed = {request: self._look(request, chances) for request in waiting}
        return [request for request, missed in self._missed.items() if missed.times >= self._needed(request)]

    def put_back(self, request: Waiting) -> None:
        """Have twice the patience with a request that was appended again; putting back may not be what it lacks."""
        key = (request.fold_id, request.attempt, request.delivery)
        self._put_back[key] = min(self._put_back.pop(key, 0) + 1, LONGEST_DOUBLINGS)
        while len(self._put_back) > REMEMBERED:
            self._put_back.popitem(last=False)

    def _needed(self, request: Waiting) -> int:
        doublings = self._put_back.get((request.fold_id, request.attempt, request.delivery), 0)
        return ((MISSES - 1) << doublings) + 1

    def _look(self, request: Waiting, chances: Collection[Chance]) -> _Missed:
        before = self._missed.get(request, _Missed(0, request.since_ms))
        after_ms = before.last_ms + (self._apart_ms if before.times else 0)
        latest_ms = max((chance.at_ms for chance in chances if _passes(chance, request)), default=-1)
        return _Missed(before.times + 1, latest_ms) if latest_ms > after_ms else before


def _passes(chance: Chance, request: Waiting) -> bool:
    return chance.queue == request.queue and (chance.offset is None or chance.offset > request.offset)
