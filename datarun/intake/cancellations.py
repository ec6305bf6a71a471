"""Cancelled attempts, as named statements: who cancelled what first, decided under the fold's lock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import cast

from psycopg2.extensions import cursor as Cursor

from datarun.lifecycle import FIRST_TERMINAL


@dataclass(frozen=True, slots=True)
class Cancellation:
    """An attempt that somebody cancelled."""

    fold_id: int
    attempt: int
    cancelled_by: str
    reason: str


def find(cursor: Cursor, fold_id: int, attempt: int) -> Cancellation | None:
    """Return who cancelled an attempt, None if nobody did; the caller holds the fold's lock."""
    cursor.execute(
        """
        select fold_id, attempt, cancelled_by, reason from intake.cancellation
        where fold_id = %s and attempt = %s""",
        (fold_id, attempt),
    )
    row = cursor.fetchone()
    return Cancellation(*row) if row else None


def record(cursor: Cursor, cancelled: Cancellation) -> datetime:
    """Record a cancellation and return when; the caller holds the fold's lock and found none."""
    cursor.execute(
        """
        insert into intake.cancellation (fold_id, attempt, cancelled_by, reason) values (%s, %s, %s, %s)
        returning cancelled_at""",
        (cancelled.fold_id, cancelled.attempt, cancelled.cancelled_by, cancelled.reason),
    )
    [(at,)] = cursor.fetchall()
    return cast("datetime", at)


def may_run(cursor: Cursor, fold_id: int, attempt: int) -> bool:
    """Tell whether an attempt may be running or waiting: no end of it is known yet."""
    cursor.execute(
        """
        select not exists (select from intake.cancellation where fold_id = %(fold)s and attempt >= %(attempt)s)
           and not exists (
            select from rm.fold
            where fold_id = %(fold)s
              and (run_attempt > %(attempt)s or run_attempt = %(attempt)s and run_rank >= %(terminal)s))""",
        {"fold": fold_id, "attempt": attempt, "terminal": int(FIRST_TERMINAL)},
    )
    row = cursor.fetchone()
    return bool(row and row[0])
