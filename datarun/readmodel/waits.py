"""What a waiting fold waits for: its place in its queue, the slots that serve it, how long folds took of late."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import cursor as Cursor

RECENT_FOLDS = 200

# The first condition is that of the partial index fold_open, to the letter.
_BEFORE = """
    select count(*) from rm.fold
    where (request_attempt > run_attempt
           or (request_attempt = run_attempt and run_rank < 8 and request_delivery > run_delivery))
      and (priority = %(queue)s and request_offset < %(offset)s or priority = 'H' and %(queue)s = 'L')"""
_SLOTS = """
    select coalesce(sum(slots), 0)::bigint, coalesce(sum(greatest(0, slots - busy)), 0)::bigint from (
        select (heartbeat->>'slots')::bigint as slots,
            jsonb_array_length(heartbeat->'running') + jsonb_array_length(heartbeat->'splitting') as busy
        from rm.runner
        where not stopping and seen_at > now() - make_interval(secs => %(alive)s)
          and heartbeat->'queues' ? %(queue)s) alive"""
_MEDIAN = """
    select percentile_cont(0.5) within group (order by train_time + validation_time + test_time) from (
        select train_time, validation_time, test_time from rm.fold
        where run_rank >= 8 and train_time > 0 and request_attempt > 0 order by fold_id desc limit %(recent)s) recent"""


@dataclass(frozen=True, slots=True)
class Queue:
    """A place in a queue: how many start before it, slots that serve the queue, how long folds take."""

    before: int
    slots: int
    free: int
    median_seconds: float | None


def look(cursor: Cursor, queue: str, offset: int, *, alive_seconds: float) -> Queue:
    """Return what is before an offset of a queue; all high folds are before a low one."""
    values = {"queue": queue, "offset": offset, "alive": alive_seconds, "recent": RECENT_FOLDS}
    (before,) = _one(cursor, _BEFORE, values)
    slots, free = _one(cursor, _SLOTS, values)
    (median,) = _one(cursor, _MEDIAN, values)
    return Queue(int(before), int(slots), int(free), median)


def waits_for_split(cursor: Cursor, fold_id: int) -> bool:
    """Tell whether a fold's request waits for the split of its dataset."""
    statement = """
        select exists (
            select from intake.outbox where key = %s and sent_at is null and waiting_for is not null)"""
    cursor.execute(statement, (str(fold_id),))
    return bool((cursor.fetchone() or (False,))[0])


def seconds_since(cursor: Cursor, fold_id: int) -> float:
    """Return how long ago something was heard of a fold's run, by the database's clock."""
    cursor.execute("select extract(epoch from now() - run_at)::float from rm.fold where fold_id = %s", (fold_id,))
    row = cursor.fetchone()
    return max(0.0, row[0]) if row and row[0] is not None else 0.0


def accepted_at(cursor: Cursor, raw_data_id: int) -> datetime | None:
    """Return when a dataset was accepted: no fold of it is older."""
    statement = """
        select least(d.uploaded_at, c.accepted_at) from (select %s as raw_data_id) asked
        left join rm.dataset d using (raw_data_id) left join intake.dataset c using (raw_data_id)"""
    cursor.execute(statement, (raw_data_id,))
    row = cursor.fetchone()
    return row[0] if row else None


def _one(cursor: Cursor, statement: str, values: dict[str, object]) -> tuple[float, ...]:
    cursor.execute(statement, values)
    return cursor.fetchone() or ()
