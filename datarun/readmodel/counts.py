"""How much there is of everything: the numbers behind the metrics, over a cursor."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

from datarun.lifecycle import State, state_of


@dataclass(frozen=True, slots=True)
class Depth:
    """A queue: requests that nobody has begun, and how long the oldest of them waits."""

    folds: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True)
class Fleet:
    """The living runners and their slots."""

    alive: int
    slots: int
    busy: int


# The first condition is that of the partial index fold_open, to the letter.
_DEPTHS = """
    select priority, count(*), extract(epoch from now() - min(requested_at))::float from rm.fold
    where (request_attempt > run_attempt
           or (request_attempt = run_attempt and run_rank < 8 and request_delivery > run_delivery))
    group by priority"""
_FLEET = """
    select count(*), coalesce(sum((heartbeat->>'slots')::bigint), 0)::bigint, coalesce(sum(
        jsonb_array_length(heartbeat->'running') + jsonb_array_length(heartbeat->'splitting')), 0)::bigint
    from rm.runner where not stopping and seen_at > now() - make_interval(secs => %s)"""
_FOLDS = """
    select request_attempt > run_attempt, run_rank, coalesce(cause, ''), count(*) from rm.fold
    where request_attempt > 0 group by 1, 2, 3"""


def queue_depths(cursor: Cursor) -> dict[str, Depth]:
    """Return the queues that folds wait in."""
    cursor.execute(_DEPTHS)
    return {queue: Depth(count, max(0.0, oldest)) for queue, count, oldest in cursor.fetchall()}


def fleet(cursor: Cursor, *, alive_seconds: float) -> Fleet:
    """Return the runners heard within some seconds."""
    cursor.execute(_FLEET, (alive_seconds,))
    return Fleet(*(cursor.fetchone() or (0, 0, 0)))


def folds(cursor: Cursor) -> dict[tuple[State, str], int]:
    """Return how many folds are in which state, of those in error by cause; this reads every row."""
    cursor.execute(_FOLDS)
    counted: dict[tuple[State, str], int] = {}
    for is_asked_anew, rank, cause, count in cursor.fetchall():
        state = state_of(request_attempt=1 + is_asked_anew, run_attempt=1, run_rank=rank)
        key = (state, cause if state is State.ERROR else "")
        counted[key] = counted.get(key, 0) + count
    return counted


def unsent(cursor: Cursor) -> tuple[int, int]:
    """Return how many accepted events the log does not have, and how many of those wait for a split."""
    cursor.execute("select count(*), count(waiting_for) from intake.outbox where sent_at is null")
    row = cursor.fetchone() or (0, 0)
    return int(row[0]), int(row[1])
