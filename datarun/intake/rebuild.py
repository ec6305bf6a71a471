"""The write side made anew from the log, for a database that was lost: names, ids, attempts, versions, cancellations.

Not in the log, and so not brought back: accounts and tokens, what is still owed to the log (the outbox), predictions
that somebody is fetching just now, first answers under an Idempotency-Key, how far cursors were acknowledged, and the
moments of this database's clock; the broker's stand in for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from datarun.errors import DatarunError
from datarun.intake.history import History, Row, read_history
from datarun.intake.outbox import OWNER_LOCK
from datarun.projection.share import Ground, batches, opened
from datarun.projection.text import json_text
from datarun.topics import DATA_EVENTS, DATA_REQUESTS, FOLD_EVENTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW

SOURCES = (DATA_EVENTS, DATA_REQUESTS, FOLD_REQUESTS_HIGH, FOLD_REQUESTS_LOW, FOLD_EVENTS)
"""Where claims are told, those of a dataset before what refers to it."""

_DATASETS = """
insert into intake.dataset
    (raw_data_id, name, target_column, workflow_elements, files, rows, uploaded_by, accepted_at)
select raw_data_id, name, target_column, workflow_elements, files, rows, uploaded_by, accepted_at
from json_populate_recordset(null::intake.dataset, %s::json)
on conflict do nothing
"""
_SPLITS = """
update intake.dataset as kept set
    split_attempt = told.split_attempt, split_request = told.split_request, split_task_id = told.split_task_id
from json_populate_recordset(null::intake.dataset, %s::json) as told
where kept.raw_data_id = told.raw_data_id and told.split_attempt > kept.split_attempt
"""
_SUBMISSIONS = """
insert into intake.submission as kept select * from json_populate_recordset(null::intake.submission, %s::json)
on conflict (submission_id) do update set
    raw_data_id = excluded.raw_data_id, version = excluded.version, files = excluded.files,
    files_digest = excluded.files_digest, accepted_at = excluded.accepted_at
where excluded.version > kept.version
"""
_FOLDS = """
insert into intake.fold as kept select * from json_populate_recordset(null::intake.fold, %s::json)
on conflict (fold_id) do update set
    attempt = excluded.attempt, submission_id = excluded.submission_id,
    submission_version = excluded.submission_version, raw_data_id = excluded.raw_data_id,
    priority = excluded.priority, train_is = excluded.train_is, test_is = excluded.test_is,
    task_id = excluded.task_id, request_digest = excluded.request_digest,
    requested_by = excluded.requested_by, accepted_at = excluded.accepted_at
where excluded.attempt > kept.attempt
"""
_OWNERS = """
update intake.submission as kept set submitted_by = told.submitted_by
from json_populate_recordset(null::intake.submission, %s::json) as told
where kept.submission_id = told.submission_id and kept.submitted_by is null
"""
_CANCELLATIONS = """
insert into intake.cancellation select * from json_populate_recordset(null::intake.cancellation, %s::json)
on conflict do nothing
"""
_IDS = """
select setval('intake.dataset_id', highest) from (select max(raw_data_id) as highest from intake.dataset) as told
where highest >= (select last_value from intake.dataset_id)
"""
_GATEWAYS = """
select count(*) from pg_locks
where locktype = 'advisory' and classid = %s::oid and objsubid = 2 and granted
  and database = (select oid from pg_database where datname = current_database())
"""


Owners = dict[int, tuple[int, datetime, str]]


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
    started, done = time.monotonic(), 0
    with opened(ground) as (event_log, connection):
        _check_alone(connection)
        # A dataset's rows come before the splits of it: partition by partition nothing is said of other topics.
        ends = [event_log.end_offsets([ground.catalogue.full_name(topic)]) for topic in SOURCES]
        total = sum(sum(end.values()) for end in ends)
        owners: Owners = {}
        for end in ends:
            for batch in batches(event_log, dict.fromkeys(end, 0), end):
                history = read_history(batch, catalogue=ground.catalogue)
                _write(connection, history)
                owners |= {key: min(told, owners.get(key, told)) for key, told in history.owners.items()}
                done += len(batch)
                progress(done, total)
        return Recovered(done, time.monotonic() - started, *_finish(connection, owners))


def _check_alone(connection: Connection) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute(_GATEWAYS, (OWNER_LOCK,))
        if cursor.fetchone() != (0,):
            raise GatewaysRunning


def _write(connection: Connection, history: History) -> None:
    parts: list[tuple[str, list[Row]]] = [
        (_DATASETS, list(history.datasets.values())),
        (_SPLITS, list(history.splits.values())),
        (_SUBMISSIONS, list(history.submissions.values())),
        (_FOLDS, list(history.folds.values())),
        (_CANCELLATIONS, list(history.cancellations.values())),
    ]
    with connection, connection.cursor() as cursor:
        for statement, rows in parts:
            if rows:
                cursor.execute(statement, (json_text(rows),))


def _finish(connection: Connection, owners: Owners) -> list[int]:
    """Say whose submissions are, let new datasets get ids after the known ones, and count."""
    rows = [{"submission_id": key, "submitted_by": name} for key, (_, _, name) in owners.items()]
    with connection, connection.cursor() as cursor:
        cursor.execute(_OWNERS, (json_text(rows),))
        cursor.execute(_IDS)
        return [_count(cursor, table) for table in ("dataset", "submission", "fold", "cancellation")]


def _count(cursor: Cursor, table: str) -> int:
    cursor.execute(f"select count(*) from intake.{table}")  # noqa: S608 - our own names
    [(count,)] = cursor.fetchall()
    return int(count)
