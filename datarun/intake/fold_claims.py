"""Claims of several folds at once, as named statements: as many round trips as for one.

Locks are taken kind by kind in the order of `claims`, and of a kind by number, so that no two transactions can block
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from typing import NamedTuple
from weakref import WeakKeyDictionary

import orjson
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from datarun.events import FoldRequested
from datarun.intake.claims import (
    DATASET_LOCK,
    FOLD_CONTEXT,
    FOLD_LOCK,
    SUBMISSION_LOCK,
    UNKNOWN_DIGEST,
    FoldContext,
    blob_name,
    contexts,
)
from datarun.intake.outbox import Entry, Queued, add

_ASKED = "unnest($1, $2, $3) with ordinality as asked (fold_id, submission_id, raw_data_id, place)"
_STATEMENTS = {
    "lock_datasets": f"""
        select pg_advisory_xact_lock_shared({DATASET_LOCK}, raw_data_id) from (
            select distinct coalesce(s.raw_data_id, asked.raw_data_id, 0) as raw_data_id
            from {_ASKED} left join intake.submission s on s.submission_id = asked.submission_id order by 1
        ) as datasets""",  # noqa: S608 - constants
    "lock_submissions": f"""
        select pg_advisory_xact_lock_shared({SUBMISSION_LOCK}, submission_id)
        from (select distinct submission_id from {_ASKED} order by 1) as submissions""",  # noqa: S608 - constants
    "lock_folds": f"""
        select pg_advisory_xact_lock({FOLD_LOCK}, fold_id)
        from (select distinct fold_id from {_ASKED} order by 1) as folds""",  # noqa: S608 - constants
    "fold_contexts": f"with asked as (select * from {_ASKED}) select {FOLD_CONTEXT} order by asked.place",  # noqa: S608 - constants
}
_PREPARE = ";".join(
    ["deallocate all"]
    + [f"prepare {name} (integer[], integer[], integer[]) as {text}" for name, text in _STATEMENTS.items()]
)
_LOCK_CONTEXTS = ";".join(
    f"execute {name} (%(fold_ids)s, %(submission_ids)s, %(raw_data_ids)s)" for name in _STATEMENTS
)
PREPARED_SECONDS = 10.0
"""Planning takes longer than the rest, but the best plan for a few rows is none for what they grow to."""
_prepared: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()

_RECORD = """
insert into intake.fold (fold_id, attempt, submission_id, submission_version, raw_data_id, priority,
    train_is, test_is, task_id, request_digest, requested_by, accepted_at)
select fold_id, attempt, submission_id, submission_version, raw_data_id, priority,
    train_is, test_is, task_id, request_digest, requested_by, accepted_at
from json_populate_recordset(null::intake.fold, %s::json)
on conflict (fold_id) do update set
    attempt = excluded.attempt, submission_id = excluded.submission_id,
    submission_version = excluded.submission_version, raw_data_id = excluded.raw_data_id,
    priority = excluded.priority, train_is = excluded.train_is, test_is = excluded.test_is,
    task_id = excluded.task_id, request_digest = excluded.request_digest,
    requested_by = excluded.requested_by, accepted_at = excluded.accepted_at, by_producer = excluded.by_producer"""


class Asked(NamedTuple):
    """A fold to look for, with its submission and the dataset named beside it."""

    fold_id: int
    submission_id: int
    raw_data_id: int | None


def lock_fold_contexts(cursor: Cursor, asked: Sequence[Asked]) -> list[FoldContext]:
    """Return what is known of each fold, unchangeable until the transaction ends; no submission may be written."""
    _prepare(cursor)
    fold_ids, submission_ids, raw_data_ids = zip(*asked, strict=True)
    cursor.execute(
        _LOCK_CONTEXTS,
        {"fold_ids": list(fold_ids), "submission_ids": list(submission_ids), "raw_data_ids": list(raw_data_ids)},
    )
    return list(contexts(cursor.fetchall()))


def _prepare(cursor: Cursor) -> None:
    if _prepared.get(cursor.connection, 0.0) < monotonic():
        cursor.execute(_PREPARE)
        _prepared[cursor.connection] = monotonic() + PREPARED_SECONDS


def record_folds(
    cursor: Cursor, claimed: Sequence[tuple[FoldRequested, datetime]], owed: Sequence[Entry]
) -> list[Queued]:
    """Record accepted attempts of different folds, each with when, and all events owed for them."""
    if not claimed:
        return []
    rows = orjson.dumps([_row(event, at) for event, at in claimed]).decode()
    return add(cursor, owed, first=_RECORD, told=[rows])


def _row(event: FoldRequested, at: datetime) -> dict[str, object]:
    return {
        "fold_id": event.fold_id,
        "attempt": event.attempt,
        "submission_id": event.submission_id,
        "submission_version": event.submission_version,
        "raw_data_id": event.dataset.raw_data_id,
        "priority": event.priority.value,
        "train_is": blob_name(event.train_is),
        "test_is": blob_name(event.test_is),
        "task_id": event.task_id,
        "request_digest": event.request_digest or UNKNOWN_DIGEST,
        "requested_by": event.requested_by,
        "accepted_at": at,
    }
