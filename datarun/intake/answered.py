"""First answers by Idempotency-Key, as named statements: recorded in the transaction of what they tell."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg2.extensions import cursor as Cursor

KEPT_HOURS = 24
_LOCK = 1_885_004


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What a request was answered when it came first."""

    request_digest: bytes
    status: int
    body: str


def find(cursor: Cursor, username: str, key: str) -> FirstAnswer | None:
    """Return the first answer to an account's key, None if there is none yet."""
    cursor.execute(
        "select request_digest, status, body from intake.answered where username = %s and key = %s", (username, key)
    )
    row = cursor.fetchone()
    return FirstAnswer(bytes(row[0]), row[1], row[2]) if row else None


def lock(cursor: Cursor, username: str, key: str) -> None:
    """Keep every other request with this key out until the transaction ends; taken before any other lock."""
    cursor.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, f"{len(username)}:{username}:{key}"))


def record(cursor: Cursor, username: str, key: str, answer: FirstAnswer) -> None:
    """Record a first answer; the caller holds the key's lock and found none."""
    cursor.execute(
        "insert into intake.answered (username, key, request_digest, status, body) values (%s, %s, %s, %s, %s)",
        (username, key, answer.request_digest, answer.status, answer.body),
    )


def prune(cursor: Cursor) -> None:
    """Forget answers after a day."""
    cursor.execute("delete from intake.answered where answered_at < now() - make_interval(hours => %s)", (KEPT_HOURS,))
