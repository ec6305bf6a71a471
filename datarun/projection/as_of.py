"""What folds and datasets were at a moment: the log up to it, by the broker's clock, in tables that do not stay."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg2.extensions import connection as Connection
from psycopg2.extras import RealDictCursor

from datarun.lifecycle import state_of
from datarun.projection.rebuild import Progress, Rebuild
from datarun.projection.share import Ground
from datarun.projection.statements import in_schema
from datarun.readmodel.schema import create_read_model, drop_read_model
from datarun.topics import PROJECTED, Kind

PREFIX = "rm_at_"
_IN_USE = "select pg_try_advisory_lock(hashtext(%s))"
_LEFT = r"select nspname from pg_namespace where nspname like 'rm\_at\_%'"
_FOLDS = """
select fold_id, greatest(request_attempt, run_attempt) as attempt, f.submission_id, submission_version,
       f.raw_data_id, priority, cause, message, runner_id, requested_at, run_at, train_time, test_time,
       fetched_attempt >= greatest(request_attempt, run_attempt) as fetched,
       coalesce(submission_version < s.version, false) as replaced, request_attempt, run_attempt, run_rank
from "{schema}".fold f left join "{schema}".submission s using (submission_id)
where (%(fold_id)s is null or fold_id = %(fold_id)s)
  and (%(submission_id)s is null or f.submission_id = %(submission_id)s)
  and (%(raw_data_id)s is null or f.raw_data_id = %(raw_data_id)s)
order by fold_id
"""
_DATASETS = """
select raw_data_id, name, uploaded_by, uploaded_at, split_attempt,
       case when split_attempt > result_attempt then 'splitting' when split_error is not null then 'split failed'
            when split is not null then 'split' else 'uploaded' end as state
from "{schema}".dataset
where uploaded_at is not null and (%(raw_data_id)s is null or raw_data_id = %(raw_data_id)s)
order by raw_data_id
"""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show; None is everything."""

    fold_id: int | None = None
    submission_id: int | None = None
    raw_data_id: int | None = None


@dataclass(frozen=True, slots=True)
class Past:
    """The read model of a moment, while its tables are there."""

    connection: Connection
    schema: str
    events: int

    def folds(self, wanted: Wanted) -> Iterator[Row]:
        """Yield folds, each with its state of that moment, by id."""
        for row in self._rows(_FOLDS, wanted):
            places = {name: row.pop(name) for name in ("request_attempt", "run_attempt", "run_rank")}
            is_over = places["run_attempt"] >= places["request_attempt"]
            yield row | {"state": state_of(**places).value} | ({} if is_over else _NOTHING_YET)

    def datasets(self, wanted: Wanted) -> Iterator[Row]:
        """Yield datasets by id."""
        yield from self._rows(_DATASETS, wanted)

    def _rows(self, statement: str, wanted: Wanted) -> Iterator[Row]:
        parameters = {name: getattr(wanted, name) for name in ("fold_id", "submission_id", "raw_data_id")}
        with self.connection, self.connection.cursor("datarun_as_of", cursor_factory=RealDictCursor) as cursor:
            cursor.execute(in_schema(statement, self.schema), parameters)
            yield from map(dict, cursor)


_NOTHING_YET: Row = {"cause": None, "message": None, "runner_id": None, "run_at": None, "train_time": 0, "test_time": 0}
"""Of an attempt that was only asked for; what an earlier one left says nothing of it."""


@contextmanager
def as_of(ground: Ground, moment: datetime, *, progress: Progress) -> Iterator[Past]:
    """Yield the read model of a moment, whose tables last as long as the block; `ground.schema` is not looked at.

    Raises LogUnavailable, and psycopg2's OperationalError; what a killed process leaves the next one drops.
    """
    ground = replace(ground, schema=f"{PREFIX}{os.getpid()}_{time.time_ns():x}")
    work = Rebuild(ground, progress=progress)
    event_log, connection = ground.open_log(), ground.open_database()
    try:
        _drop_left(connection)
        with connection:
            _lock(connection, ground.schema)
            create_read_model(connection, schema=ground.schema)
        # Of runners the log remembers only the last hour.
        topics = [ground.catalogue.full_name(topic) for topic in PROJECTED if topic.kind is not Kind.STATE]
        later = int(moment.timestamp() * 1000) + 1
        work.bring_to(connection, event_log.offsets_at(event_log.end_offsets(topics), later))
        yield Past(connection, ground.schema, work.applied)
    finally:
        connection.rollback()
        with connection:
            drop_read_model(connection, schema=ground.schema)
        connection.close()
        event_log.close()


def _drop_left(connection: Connection) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(_LEFT)
        for (schema,) in cursor.fetchall():
            if _lock(connection, schema):
                drop_read_model(connection, schema=schema)


def _lock(connection: Connection, schema: str) -> bool:
    """Tell whether nobody else uses the schema; the connection's end frees it."""
    with connection.cursor() as cursor:
        cursor.execute(_IN_USE, (schema,))
        return cursor.fetchone() == (True,)
