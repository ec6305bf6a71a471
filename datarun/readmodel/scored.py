"""Folds whose newest attempt is tested, with what their scores are made from: over a cursor."""

from __future__ import annotations

from typing import NamedTuple

from psycopg2.extensions import cursor as Cursor

from datarun.lifecycle import Rank


class ScoredFold(NamedTuple):
    """A tested fold of a submission's newest version; blobs are named by `sha256:size`."""

    fold_id: int
    attempt: int
    submission_id: int
    submission_version: int
    raw_data_id: int
    owner: str
    train_is: str
    test_is: str
    full_train_predictions: str | None
    full_train_shape: list[int] | None
    test_predictions: str | None
    test_shape: list[int] | None


_TESTED = f"""
    select f.fold_id, f.run_attempt, f.submission_id, f.submission_version, f.raw_data_id,
        coalesce(claimed.submitted_by, f.requested_by), f.train_is, f.test_is, f.full_train_predictions,
        f.full_train_shape, f.test_predictions, f.test_shape
    from rm.fold f
    left join intake.fold c on c.fold_id = f.fold_id
    left join rm.submission seen on seen.submission_id = f.submission_id
    left join intake.submission claimed on claimed.submission_id = f.submission_id
    where f.run_rank = {int(Rank.TESTED)} and f.run_attempt >= f.request_attempt and f.request_attempt > 0
      and coalesce(c.attempt, 0) <= f.run_attempt
      and f.submission_version >= greatest(seen.version, claimed.version, 0)"""  # noqa: S608 - constants
_OF_SUBMISSION = f"{_TESTED} and f.submission_id = %(submission_id)s order by f.fold_id limit %(limit)s"
_OF_DATASET = f"""{_TESTED} and f.raw_data_id = %(raw_data_id)s and f.fold_id > %(after)s
      and (%(only_of)s is null or coalesce(claimed.submitted_by, f.requested_by) = %(only_of)s)
    order by f.fold_id limit %(limit)s"""


def folds_of_submission(cursor: Cursor, submission_id: int, *, limit: int) -> list[ScoredFold]:
    """Return a submission's tested folds by number."""
    cursor.execute(_OF_SUBMISSION, {"submission_id": submission_id, "limit": limit})
    return [ScoredFold(*row) for row in cursor.fetchall()]


def folds_of_dataset(
    cursor: Cursor, raw_data_id: int, *, after: int, limit: int, only_of: str | None
) -> list[ScoredFold]:
    """Return a dataset's tested folds that follow a number."""
    values = {"raw_data_id": raw_data_id, "after": after, "limit": limit, "only_of": only_of}
    cursor.execute(_OF_DATASET, values)
    return [ScoredFold(*row) for row in cursor.fetchall()]
