"""Fetch claims, as named statements: who fetches new predictions holds them, so that two fetchers are disjoint.

A claim lapses when its gateway dies; it becomes final when the last byte was delivered, and stays until the read model
has the event.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor

CLAIM_SECONDS = 60
FINAL_SECONDS = 600
"""How long a final claim stays at least after the read model says the same."""


def claim(cursor: Cursor, attempts: Sequence[tuple[int, int]], fetch_id: uuid.UUID, *, view: str = "") -> set[int]:
    """Claim the predictions of (fold_id, attempt) pairs in a view; returns the folds that nobody else holds in it."""
    if not attempts:
        return set()
    ordered = sorted(attempts)
    cursor.execute(
        """
        insert into intake.fetch_claim (fold_id, attempt, view, fetch_id, claimed_until)
        select fold_id, attempt, %(view)s, %(fetch_id)s::uuid, now() + make_interval(secs => %(seconds)s)
        from unnest(%(folds)s::integer[], %(attempts)s::integer[]) as asked (fold_id, attempt)
        on conflict (fold_id, attempt, view) do update set
            fetch_id = excluded.fetch_id, claimed_at = now(), claimed_until = excluded.claimed_until
            where fetch_claim.claimed_until < now()
        returning fold_id""",
        {
            "fetch_id": str(fetch_id),
            "view": view,
            "seconds": CLAIM_SECONDS,
            "folds": [fold_id for fold_id, _ in ordered],
            "attempts": [attempt for _, attempt in ordered],
        },
    )
    return {fold_id for (fold_id,) in cursor.fetchall()}


def extend(cursor: Cursor, fetch_id: uuid.UUID) -> None:
    """Hold what is still being delivered for another while."""
    cursor.execute(
        "update intake.fetch_claim set claimed_until = now() + make_interval(secs => %s) where fetch_id = %s::uuid",
        (CLAIM_SECONDS, str(fetch_id)),
    )


def finish(cursor: Cursor, fetch_id: uuid.UUID, folds: Sequence[int]) -> list[tuple[int, int]]:
    """Make a delivery's claims final; returns their (fold_id, attempt) pairs, not those another took over."""
    cursor.execute(
        """
        update intake.fetch_claim set claimed_until = 'infinity'
        where fetch_id = %s::uuid and fold_id = any (%s::integer[]) and claimed_until < 'infinity'
        returning fold_id, attempt""",
        (str(fetch_id), list(folds)),
    )
    return sorted(cursor.fetchall())


def free(cursor: Cursor, fetch_id: uuid.UUID) -> None:
    """Give up the claims of a delivery that did not arrive: its predictions are new again."""
    cursor.execute(
        "delete from intake.fetch_claim where fetch_id = %s::uuid and claimed_until < 'infinity'", (str(fetch_id),)
    )


def prune(cursor: Cursor) -> None:
    """Forget claims that lapsed, and final ones that the read model has caught up with, or a newer attempt made old."""
    cursor.execute(
        """
        delete from intake.fetch_claim claim
        where claimed_at < now() - make_interval(secs => %s) and (
            claimed_until < now()
            or exists (
                select from rm.fold f where f.fold_id = claim.fold_id and (
                    f.request_attempt > claim.attempt or view = '' and f.fetched_attempt >= claim.attempt)))""",
        (FINAL_SECONDS,),
    )
