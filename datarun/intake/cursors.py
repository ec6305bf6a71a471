"""Cursors, as named statements: how far an account has acknowledged the log of folds; they only move on."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor


def find(cursor: Cursor, username: str, name: str) -> list[int] | None:
    """Return the offsets of a cursor by partition, None for one that was never moved."""
    cursor.execute("select offsets from intake.cursor where username = %s and name = %s", (username, name))
    row = cursor.fetchone()
    return list(row[0]) if row else None


def move(cursor: Cursor, username: str, name: str, offsets: Sequence[int]) -> None:
    """Move a cursor on; where it is further already it stays."""
    cursor.execute(
        """
        insert into intake.cursor (username, name, offsets) values (%s, %s, %s::bigint[])
        on conflict (username, name) do update set moved_at = now(), offsets = (
            select array_agg(greatest(known, moved) order by number)
            from unnest(cursor.offsets, excluded.offsets) with ordinality as pair (known, moved, number))""",
        (username, name, list(offsets)),
    )


def forget(cursor: Cursor, username: str, name: str) -> None:
    """Let a cursor begin anew."""
    cursor.execute("delete from intake.cursor where username = %s and name = %s", (username, name))
