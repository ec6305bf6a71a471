"""The write side made anew from the log, for a database that was lost: names, ids, attempts, versions, cancellations.

Not in the log, and so not brought back: accounts and tokens, what is still owed to the log (the outbox), predictions
that somebody is fetching just now, first answers under an Idempotency-Key, how far cursors were acknowledged,
webhooks, and the moments of this database's clock; the broker's stand in for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from datarun.errors import DatarunError
from datarun.intake.following import FOLLOWED, Offsets, move_offsets
from datarun.intake.history import History, read_history
from datarun.intake.merging import merge, merge_numbers, merge_owners
from datarun.intake.outbox import OWNER_LOCK
from datarun.projection.share import Ground, batches, opened
from datarun.topics import DATA_EVENTS, DATA_REQUESTS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW

SOURCES = (DATA_EVENTS, DATA_REQUESTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, FOLD_EVENTS)
"""Where claims are told, those of a dataset before what refers to it."""

_GATEWAYS = """
select count(*) from pg_locks
where locktype = 'advisory' and classid = %s::oid and objsubid = 2 and granted
  and database = (select oid from pg_database where datname = current_database())
"""


class GatewaysRunning(DatarunError):
    """Gateways work on this database; stop them first, so that they give out no id that the log knows already."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was read, and what the write side knows now."""

    events: int
    seconds: float
    datasets: int
    submissions: int
    folds: int
    cancellations: int


def rebuild(ground: Ground, *, progress: Callable[[int, int], None]) -> Recovered:
    """Bring the claims of the whole log into the write side; claims that are there and newer stay as they are.

    It may be interrupted and run again. Raises GatewaysRunning, LogUnavailable, and psycopg2's OperationalError.
    """
    _check_alone(ground)
    return recover(ground, progress=progress)


def recover(ground: Ground, *, progress: Callable[[int, int], None]) -> Recovered:
    """Do the same for a caller that lets no gateway decide meanwhile."""
    started, done = time.monotonic(), 0
    with opened(ground) as (event_log, connection):
        # A dataset's rows come before the splits of it: partition by partition nothing is said of other topics.
        ends = [event_log.end_offsets([ground.catalogue.full_name(topic)]) for topic in SOURCES]
        total = sum(sum(end.values()) for end in ends)
        whole = History()
        for topic, end in zip(SOURCES, ends, strict=True):
            for batch in batches(event_log, dict.fromkeys(end, 0), end):
                history = read_history(batch, catalogue=ground.catalogue)
                whole.take(history)
                if topic is not DATA_EVENTS:
                    _write(connection, replace(history, datasets={}))
                done += len(batch)
                progress(done, total)
            if topic is DATA_EVENTS:
                # Who has a name first is known when all of them are.
                _write(connection, History(datasets=whole.datasets))
        return Recovered(done, time.monotonic() - started, *_finish(connection, whole, ends))


def _check_alone(ground: Ground) -> None:
    with closing(ground.open_database()) as connection, connection.cursor() as cursor:
        cursor.execute(_GATEWAYS, (OWNER_LOCK,))
        if cursor.fetchone() != (0,):
            raise GatewaysRunning


def _write(connection: Connection, history: History) -> None:
    with connection, connection.cursor() as cursor:
        merge(cursor, history)


def _finish(connection: Connection, whole: History, ends: Sequence[Offsets]) -> list[int]:
    """Say whose submissions are, let datasets get numbers after the known ones, let gateways read on; count."""
    with connection, connection.cursor() as cursor:
        merge_owners(cursor, whole)
        merge_numbers(cursor)
        for topic, end in zip(SOURCES, ends, strict=True):
            if topic in FOLLOWED:
                move_offsets(cursor, end)
        return [_count(cursor, table) for table in ("dataset", "submission", "fold", "cancellation")]


def _count(cursor: Cursor, table: str) -> int:
    cursor.execute(f"select count(*) from intake.{table}")  # noqa: S608 - our own names
    [(count,)] = cursor.fetchall()
    return int(count)
