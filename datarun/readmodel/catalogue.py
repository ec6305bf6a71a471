"""Datasets, splits, submissions and runners in pages: what /v1 reads of them, over a cursor."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.extensions import cursor as Cursor

from datarun.lifecycle import Rank


@dataclass(frozen=True, slots=True)
class ListedDataset:
    """A dataset, projected or only accepted yet, and its newest split."""

    raw_data_id: int
    name: str
    target_column: str
    workflow_elements: str
    files: list[dict[str, Any]]
    rows: int | None
    uploaded_by: str
    uploaded_at: datetime
    split_attempt: int
    split_task_id: str | None
    split_request: dict[str, Any] | None
    result_attempt: int
    split: dict[str, Any] | None
    split_error: str | None
    split_at: datetime | None


@dataclass(frozen=True, slots=True)
class ListedSubmission:
    """A submission's newest version; `folds` counts the folds of that version by state."""

    submission_id: int
    raw_data_id: int
    version: int
    files: list[dict[str, Any]]
    accepted_at: datetime | None
    folds: dict[str, int]


@dataclass(frozen=True, slots=True)
class ListedRunner:
    """A runner by its newest heartbeat; `seconds_silent` is by the database's clock."""

    runner_id: str
    seen_at: datetime
    seconds_silent: float
    stopping: bool
    heartbeat: dict[str, Any]


_SPLIT = """
    and (not %(is_split)s or split_attempt > 0)
    and (%(raw_data_id)s::integer is null or raw_data_id = %(raw_data_id)s)
    and (%(task_id)s::text is null or split_task_id = %(task_id)s)"""
_DATASETS = f"""
    select raw_data_id, coalesce(d.name, c.name), coalesce(d.target_column, c.target_column),
        coalesce(d.workflow_elements, c.workflow_elements), coalesce(d.files, c.files), c.rows,
        coalesce(d.uploaded_by, c.uploaded_by), coalesce(d.uploaded_at, c.accepted_at),
        greatest(d.split_attempt, c.split_attempt),
        case when coalesce(c.split_attempt, 0) > coalesce(d.split_attempt, 0) then c.split_task_id
             else d.split_task_id end,
        case when c.split_attempt >= coalesce(d.split_attempt, 0) then c.split_request end,
        coalesce(d.result_attempt, 0), d.split, d.split_error, d.split_at
    from (
        (select raw_data_id from rm.dataset where raw_data_id > %(after)s and name is not null {_SPLIT}
         order by raw_data_id limit %(limit)s)
        union
        (select raw_data_id from intake.dataset where raw_data_id > %(after)s {_SPLIT}
         order by raw_data_id limit %(limit)s)
        order by raw_data_id limit %(limit)s) asked
    left join rm.dataset d using (raw_data_id)
    left join intake.dataset c using (raw_data_id)
    order by raw_data_id"""  # noqa: S608 - constants

_FITS_VERSION = "greatest(s.version, c.version)"
_SUBMISSIONS = f"""
    select submission_id, coalesce(s.raw_data_id, c.raw_data_id), {_FITS_VERSION},
        case when c.version = {_FITS_VERSION} then c.files else '[]'::jsonb end,
        case when c.version = {_FITS_VERSION} then c.accepted_at end,
        (select coalesce(jsonb_object_agg(state, count), jsonb_build_object()) from (
            select case when request_attempt > run_attempt then 'TODO'
                        when run_rank = {int(Rank.TESTED)} then 'TESTED'
                        when run_rank = {int(Rank.ERROR)} then 'ERROR'
                        when run_rank = {int(Rank.TRAINED)} then 'TRAINED'
                        when run_rank = {int(Rank.STARTED)} then 'STARTED'
                        else 'TODO' end as state, count(*)
            from rm.fold f
            where f.submission_id = asked.submission_id and f.submission_version = {_FITS_VERSION}
            group by 1) counted)
    from (
        (select submission_id from rm.submission where submission_id > %(after)s {{own}}
         order by submission_id limit %(limit)s)
        union
        (select submission_id from intake.submission where submission_id > %(after)s {{own_claims}}
         order by submission_id limit %(limit)s)
        order by submission_id limit %(limit)s) asked
    left join rm.submission s using (submission_id)
    left join intake.submission c using (submission_id)
    order by submission_id"""  # noqa: S608 - constants
# Whoever sent a submission first owns it.
_OWN = "and submission_id in (select submission_id from intake.submission where submitted_by = %(only_of)s)"
_OWN_CLAIMS = "and submitted_by = %(only_of)s"
_ON_DATASET = " and raw_data_id = %(raw_data_id)s"


def list_datasets(cursor: Cursor, *, after: int, limit: int) -> list[ListedDataset]:
    """Return the datasets that follow a number."""
    values = {"after": after, "limit": limit, "is_split": False, "raw_data_id": None, "task_id": None}
    cursor.execute(_DATASETS, values)
    return [ListedDataset(*row) for row in cursor.fetchall()]


def list_splits(
    cursor: Cursor, *, after: int, limit: int, raw_data_id: int | None, task_id: str | None
) -> list[ListedDataset]:
    """Return the datasets that follow a number and that somebody had split, all or one, or by the newest task."""
    values = {"after": after, "limit": limit, "is_split": True, "raw_data_id": raw_data_id, "task_id": task_id}
    cursor.execute(_DATASETS, values)
    found = [ListedDataset(*row) for row in cursor.fetchall()]
    return [one for one in found if task_id in (None, one.split_task_id)]


def list_submissions(
    cursor: Cursor, *, after: int, limit: int, only_of: str | None, raw_data_id: int | None = None
) -> list[ListedSubmission]:
    """Return the submissions that follow a number, of one account or of all, on one dataset or on all."""
    own, own_claims = (_OWN, _OWN_CLAIMS) if only_of is not None else ("", "")
    on_it = _ON_DATASET if raw_data_id is not None else ""
    statement = _SUBMISSIONS.format(own=own + on_it, own_claims=own_claims + on_it)
    cursor.execute(statement, {"after": after, "limit": limit, "only_of": only_of, "raw_data_id": raw_data_id})
    return [ListedSubmission(*row) for row in cursor.fetchall()]


def owners(cursor: Cursor, submissions: Collection[int]) -> Mapping[int, str]:
    """Return who sent each of some submissions first; who nobody knows of is left out."""
    statement = """
        select submission_id, submitted_by from intake.submission
        where submission_id = any(%s) and submitted_by is not null"""
    cursor.execute(statement, (list(submissions),))
    return dict(cursor.fetchall())


def submissions_of(cursor: Cursor, owner: str) -> Collection[int]:
    """Return the submissions that an account sent first."""
    cursor.execute("select submission_id from intake.submission where submitted_by = %s", (owner,))
    return {number for (number,) in cursor.fetchall()}


def dataset_of(cursor: Cursor, submission_id: int) -> int | None:
    """Return the dataset of a submission, None of one that nobody knows."""
    statement = """
        select coalesce(s.raw_data_id, c.raw_data_id) from (select %s::integer as submission_id) asked
        left join rm.submission s using (submission_id) left join intake.submission c using (submission_id)"""
    cursor.execute(statement, (submission_id,))
    row = cursor.fetchone()
    return row[0] if row else None


def list_runners(cursor: Cursor, *, after: str, limit: int, alive_seconds: float | None) -> list[ListedRunner]:
    """Return the runners that follow a name, those heard within some seconds or all."""
    cursor.execute(
        """
        select runner_id, seen_at, extract(epoch from now() - seen_at)::float, stopping, heartbeat from rm.runner
        where runner_id > %(after)s
          and (%(alive)s::float is null or not stopping and seen_at > now() - make_interval(secs => %(alive)s))
        order by runner_id limit %(limit)s""",
        {"after": after, "limit": limit, "alive": alive_seconds},
    )
    return [ListedRunner(*row) for row in cursor.fetchall()]
