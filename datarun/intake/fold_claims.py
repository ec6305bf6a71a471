"""Claims of several folds at once, as named statements: as many round trips as for one.

Locks are taken kind by kind in the order of `claims`, and of a kind by number, so that no two transactions can block
each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
    context,
)
from datarun.intake.outbox import Entry, Queued, add

_ASKED = """
unnest(%(fold_ids)s::integer[], %(submission_ids)s::integer[], %(raw_data_ids)s::integer[]) with ordinality
    as asked (fold_id, submission_id, raw_data_id, place)"""
_LOCK_CONTEXTS = f"""
select pg_advisory_xact_lock_shared({DATASET_LOCK}, raw_data_id) from (
    select distinct coalesce(s.raw_data_id, asked.raw_data_id, 0) as raw_data_id
    from {_ASKED} left join intake.submission s on s.submission_id = asked.submission_id order by 1) as datasets;
select pg_advisory_xact_lock_shared({SUBMISSION_LOCK}, submission_id) from (
    select distinct submission_id from {_ASKED} order by 1) as submissions;
select pg_advisory_xact_lock({FOLD_LOCK}, fold_id) from (select distinct fold_id from {_ASKED} order by 1) as folds;
with asked as (select * from {_ASKED})
select {FOLD_CONTEXT}
order by asked.place"""  # noqa: S608 - constants

_INSERT = b"""
insert into intake.fold (fold_id, attempt, submission_id, submission_version, raw_data_id, priority,
    train_is, test_is, task_id, request_digest, requested_by)
values """
_REPLACE = b"""
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
    fold_ids, submission_ids, raw_data_ids = zip(*asked, strict=True)
    cursor.execute(
        _LOCK_CONTEXTS,
        {"fold_ids": list(fold_ids), "submission_ids": list(submission_ids), "raw_data_ids": list(raw_data_ids)},
    )
    return [context(row) for row in cursor.fetchall()]


def record_folds(cursor: Cursor, claimed: Sequence[FoldRequested], owed: Sequence[Entry]) -> list[Queued]:
    """Record accepted attempts of different folds, and all events owed for them."""
    if not claimed:
        return []
    rows = b", ".join(cursor.mogrify(_ROW, _values(event)) for event in claimed)
    return add(cursor, owed, first=_INSERT + rows + _REPLACE)


_ROW = "(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"


def _values(event: FoldRequested) -> tuple[object, ...]:
    return (
        event.fold_id,
        event.attempt,
        event.submission_id,
        event.submission_version,
        event.dataset.raw_data_id,
        event.priority.value,
        blob_name(event.train_is),
        blob_name(event.test_is),
        event.task_id,
        event.request_digest or UNKNOWN_DIGEST,
        event.requested_by,
    )
