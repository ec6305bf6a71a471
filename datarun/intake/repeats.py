"""A fold as it was asked for last, as named statements: what it takes to ask for it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True, slots=True)
class AskedFold:
    """The newest accepted attempt of a fold; blobs are named by `sha256:size`."""

    attempt: int
    submission_id: int
    submission_version: int
    priority: str
    train_is: str
    test_is: str
    task_id: str
    request_digest: str
    requested_by: str


def find(cursor: Cursor, fold_id: int) -> AskedFold | None:
    """Return a fold's newest accepted attempt, None if nobody asked for it here."""
    cursor.execute(
        """
        select attempt, submission_id, submission_version, priority, train_is, test_is, task_id, request_digest,
            requested_by
        from intake.fold where fold_id = %s""",
        (fold_id,),
    )
    row = cursor.fetchone()
    return AskedFold(*row) if row else None


def own(cursor: Cursor, username: str, ids: Sequence[int]) -> set[int]:
    """Return those of some folds whose submission an account sent first."""
    cursor.execute(
        """
        with owned as (select submission_id from intake.submission where submitted_by = %(by)s)
        select fold_id from intake.fold join owned using (submission_id) where fold_id = any(%(ids)s::integer[])
        union select fold_id from rm.fold join owned using (submission_id) where fold_id = any(%(ids)s::integer[])""",
        {"ids": list(ids), "by": username},
    )
    return {fold_id for (fold_id,) in cursor.fetchall()}


def owners(cursor: Cursor, ids: Sequence[int]) -> dict[int, str]:
    """Return who sent the submissions of some folds first; of some nobody knows."""
    cursor.execute(
        """
        with asked as (select unnest(%(ids)s::integer[]) as fold_id), known as (
            select fold_id, submission_id from intake.fold join asked using (fold_id)
            union select fold_id, submission_id from rm.fold join asked using (fold_id))
        select fold_id, submitted_by from known join intake.submission using (submission_id)
        where submitted_by is not null""",
        {"ids": list(ids)},
    )
    return dict(cursor.fetchall())
