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


def is_own(cursor: Cursor, username: str, *, fold_id: int, submission_id: int) -> bool:
    """Tell whether nobody else asked for this fold, or for another of its submission."""
    cursor.execute(
        """
        select not exists (
            select from intake.fold where (fold_id = %s or submission_id = %s) and requested_by <> %s)""",
        (fold_id, submission_id, username),
    )
    row = cursor.fetchone()
    return bool(row and row[0])


def own(cursor: Cursor, username: str, ids: Sequence[int]) -> set[int]:
    """Return those of some folds that an account asked for."""
    cursor.execute(
        """
        select fold_id from intake.fold where fold_id = any(%(ids)s::integer[]) and requested_by = %(by)s
        union select fold_id from rm.fold where fold_id = any(%(ids)s::integer[]) and requested_by = %(by)s""",
        {"ids": list(ids), "by": username},
    )
    return {fold_id for (fold_id,) in cursor.fetchall()}
