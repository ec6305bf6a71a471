"""What the reaper sees of the read model, through the one connection that holds its advisory lock."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from psycopg2.extensions import connection as Connection

from datarun.leases import PendingSplit, Run, Runner
from datarun.lifecycle import Rank
from datarun.log import Position, TopicPartition
from datarun.overtaking import Chance, Waiting
from datarun.projection.holes import pass_over
from datarun.projection.offsets import Offsets, read_offsets
from datarun.readmodel import SCHEMA

_HELD = """
select fold_id, run_attempt, run_delivery, runner_id,
       request_delivery, submission_id, raw_data_id, request_topic, request_partition, request_offset
from rm.fold
where run_rank between 1 and 3 and run_rank <> %s and run_attempt = request_attempt
"""
_RUNNERS = "select runner_id, sequence, heartbeat->'running' from rm.runner where runner_id = any(%s)"
_PENDING = """
select raw_data_id, split_attempt, split_request_offset
from rm.dataset
where split_attempt > result_attempt and split_request_offset is not null
"""
_SPLITTING = """
select runner_id, sequence, heartbeat->'splitting' from rm.runner where heartbeat->'splitting' <> '[]'::jsonb
"""
# The condition is that of the partial index fold_open, to the letter.
_FIRST_WAITING = """
(select fold_id, request_attempt, request_delivery, priority, request_offset,
        (extract(epoch from requested_at) * 1000)::bigint, request_topic, request_partition
from rm.fold
where (request_attempt > run_attempt
       or (request_attempt = run_attempt and run_rank < 8 and request_delivery > run_delivery))
  and priority = %s
order by request_offset limit %s)
"""
_WAITING = f"{_FIRST_WAITING} union all {_FIRST_WAITING}"
_CHANCES = """
select priority, request_offset, (extract(epoch from run_at) * 1000)::bigint
from rm.fold
where run_rank between 1 and 3 and run_rank = 1 and (run_attempt, run_delivery) = (request_attempt, request_delivery)
union all
select queue, null::bigint, (extract(epoch from max(seen_at)) * 1000)::bigint
from rm.runner, jsonb_array_elements_text(heartbeat->'queues') queue
where not stopping and (heartbeat->>'slots')::numeric
      > jsonb_array_length(heartbeat->'running') + jsonb_array_length(heartbeat->'splitting')
group by queue
"""
WAITING_A_QUEUE = 200
"""So many are looked at; what is overtaken waits longest, and once put back it makes room for the next."""
FROZEN_SECONDS = 20
"""The reaper asks every second; silent for so long it was stopped, and loses its lock to another."""
_LOCK = "select pg_try_advisory_lock(hashtext('datarun.reaper'))"


class Held(NamedTuple):
    """What it takes to request a started fold again."""

    request_delivery: int
    submission_id: int
    raw_data_id: int
    request: Position


class ReadModel(Protocol):
    """The reaper's questions to the read model."""

    def held(self) -> dict[Run, Held]:
        """Return every run of a current attempt that was started and has not ended."""
        ...

    def runners(self) -> dict[str, Runner]:
        """Return the newest heartbeat of every runner that holds something."""
        ...

    def pending_splits(self) -> dict[PendingSplit, int]:
        """Return the splits without a result, each with the offset of its request."""
        ...

    def splitting(self) -> dict[str, tuple[int, frozenset[int]]]:
        """Return, for runners that name any, their newest sequence and the datasets they split."""
        ...

    def waiting(self) -> dict[Waiting, Position]:
        """Return the first of the requests that nobody has begun, each queue's in order, and where each is."""
        ...

    def chances(self) -> list[Chance]:
        """Return when queues handed out what is running, and when a runner with a free slot last asked each."""
        ...

    def offsets(self) -> Offsets:
        """Return how far the projection has come."""
        ...


class Postgres:
    """The read model in Postgres; its connection is in autocommit and used by one thread."""

    def __init__(self, connection: Connection) -> None:
        connection.autocommit = True
        self._connection = connection
        self._locked = False

    def lock(self) -> bool:
        """Become the one reaper, if nobody is, and stay it; the connection's end ends it."""
        if not self._locked:
            with self._connection.cursor() as cursor:
                cursor.execute("set idle_session_timeout = %s", (f"{FROZEN_SECONDS}s",))
                cursor.execute(_LOCK)
                self._locked = cursor.fetchone() == (True,)
        return self._locked

    def close(self) -> None:
        """Let go of the lock and the connection."""
        self._connection.close()

    def pass_over(self, tp: TopicPartition, start: int, stop: int) -> None:
        """Move the projection over a hole in the log, if it stands before it."""
        pass_over(self._connection, tp, start, stop)

    def held(self) -> dict[Run, Held]:
        """Return every run of a current attempt that was started and has not ended."""
        with self._connection.cursor() as cursor:
            cursor.execute(_HELD, (int(Rank.LOST),))
            rows = cursor.fetchall()
        return {Run(*row[:4]): Held(row[4], row[5], row[6], Position(*row[7:])) for row in rows}

    def runners(self) -> dict[str, Runner]:
        """Return the newest heartbeat of every runner that holds something."""
        holders = sorted({run.runner_id for run in self.held()})
        with self._connection.cursor() as cursor:
            cursor.execute(_RUNNERS, (holders,))
            return {
                runner_id: Runner(sequence, _running(running)) for runner_id, sequence, running in cursor.fetchall()
            }

    def pending_splits(self) -> dict[PendingSplit, int]:
        """Return the splits without a result, each with the offset of its request."""
        with self._connection.cursor() as cursor:
            cursor.execute(_PENDING)
            return {PendingSplit(*row[:2]): row[2] for row in cursor.fetchall()}

    def splitting(self) -> dict[str, tuple[int, frozenset[int]]]:
        """Return, for runners that name any, their newest sequence and the datasets they split."""
        with self._connection.cursor() as cursor:
            cursor.execute(_SPLITTING)
            return {runner_id: (sequence, frozenset(ids)) for runner_id, sequence, ids in cursor.fetchall()}

    def waiting(self) -> dict[Waiting, Position]:
        """Return the first of the requests that nobody has begun, each queue's in order, and where each is."""
        with self._connection.cursor() as cursor:
            cursor.execute(_WAITING, ("H", WAITING_A_QUEUE, "L", WAITING_A_QUEUE))
            rows = cursor.fetchall()
        return {Waiting(*row[:6]): Position(row[6], row[7], row[4]) for row in rows}

    def chances(self) -> list[Chance]:
        """Return when queues handed out what is running, and when a runner with a free slot last asked each."""
        with self._connection.cursor() as cursor:
            cursor.execute(_CHANCES)
            return [Chance(*row) for row in cursor.fetchall()]

    def offsets(self) -> Offsets:
        """Return how far the projection has come."""
        with self._connection.cursor() as cursor:
            return read_offsets(cursor, schema=SCHEMA)


def _running(named: list[dict[str, int]]) -> frozenset[tuple[int, int, int]]:
    return frozenset((fold["fold_id"], fold["attempt"], fold["delivery"]) for fold in named)
