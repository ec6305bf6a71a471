"""Deliveries to webhooks, as named statements: each try with its outcome, and the place it leaves a webhook at.

A sender's statements change nothing once the webhook was changed, or another gateway sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from psycopg2.extensions import cursor as Cursor

KEPT = 100
"""So many tries of each webhook are kept."""
OFFICE = "webhooks"

Cause = Literal["event", "ping", "redelivery"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try to deliver a message: `status` is what the receiver answered, if it did."""

    message_id: str
    kind: str
    body: str
    cause: Cause
    attempt: int
    status: int | None
    error: str | None
    """Why it was not delivered."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """A try as it is kept."""

    delivery_id: int
    tried: Try
    tried_at: datetime
    next_try_at: datetime | None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a sender works on: a webhook as it was when it began, for the gateway that holds the office."""

    webhook_id: int
    generation: int
    owner: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a try came to."""

    is_delivered: bool = False
    is_disabled: bool = False
    pause_seconds: float = 0.0


_ITS_TURN = """
    webhook_id = %(id)s and generation = %(generation)s and disabled_at is null
    and exists (select from intake.office where name = %(office)s and owner = %(owner)s)"""


def move(cursor: Cursor, turn: Turn, offsets: Sequence[int]) -> bool:
    """Move a webhook on behind what it does not want; False if it is not this sender's any more."""
    cursor.execute(
        f"update intake.webhook set offsets = %(offsets)s::bigint[] where {_ITS_TURN}",  # noqa: S608 - our own
        {"offsets": list(offsets), **_of(turn)},
    )
    return bool(cursor.rowcount)


def deliver(cursor: Cursor, turn: Turn, offsets: Sequence[int], tried: Try) -> Standing | None:
    """Record a delivered message and move on behind it; None if it is not this sender's any more."""
    cursor.execute(
        f"""
        update intake.webhook set
            offsets = %(offsets)s::bigint[], attempts = 0, failing_since = null, next_try_at = null,
            last_error = null, delivered_at = now()
        where {_ITS_TURN}""",  # noqa: S608 - our own
        {"offsets": list(offsets), **_of(turn)},
    )
    if not cursor.rowcount:
        return None
    record(cursor, turn.webhook_id, tried)
    return Standing(is_delivered=True)


def fail(cursor: Cursor, turn: Turn, tried: Try, *, pause_seconds: float, give_up_seconds: float) -> Standing | None:
    """Record a message that was not delivered; after so long the webhook is disabled. None: not this sender's."""
    cursor.execute(
        f"""
        update intake.webhook set
            attempts = %(attempt)s, last_error = %(error)s, failing_since = coalesce(failing_since, now()),
            next_try_at = now() + make_interval(secs => %(pause)s)
        where {_ITS_TURN}
        returning next_try_at, extract(epoch from now() - failing_since)::float8""",  # noqa: S608 - our own
        {"attempt": tried.attempt, "error": tried.error, "pause": pause_seconds, **_of(turn)},
    )
    row = cursor.fetchone()
    if row is None:
        return None
    next_try_at, failing_seconds = row
    gives_up = failing_seconds >= give_up_seconds
    record(cursor, turn.webhook_id, tried, next_try_at=None if gives_up else next_try_at)
    return Standing(is_disabled=gives_up, pause_seconds=pause_seconds)


def record(cursor: Cursor, webhook_id: int, tried: Try, *, next_try_at: datetime | None = None) -> Delivery | None:
    """Keep a try, and forget the oldest beyond the bound; None if the webhook is gone."""
    cursor.execute(
        """
        insert into intake.webhook_delivery
            (webhook_id, message_id, kind, body, cause, attempt, status, error, seconds, next_try_at)
        select webhook_id, %s, %s, %s, %s, %s, %s, %s, %s, %s from intake.webhook where webhook_id = %s for key share
        returning delivery_id, tried_at, next_try_at""",
        (
            tried.message_id,
            tried.kind,
            tried.body,
            tried.cause,
            tried.attempt,
            tried.status,
            tried.error,
            tried.seconds,
            next_try_at,
            webhook_id,
        ),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    cursor.execute(
        """
        delete from intake.webhook_delivery where webhook_id = %(id)s and delivery_id <= (
            select delivery_id from intake.webhook_delivery where webhook_id = %(id)s
            order by delivery_id desc offset %(kept)s limit 1)""",
        {"id": webhook_id, "kept": KEPT},
    )
    return Delivery(row[0], tried, row[1], row[2])


def ls(cursor: Cursor, webhook_id: int) -> list[Delivery]:
    """Return what was tried of a webhook lately, the newest first."""
    cursor.execute(f"{_SELECT} where webhook_id = %s order by delivery_id desc limit %s", (webhook_id, KEPT))
    return [_delivery(*row) for row in cursor.fetchall()]


def find(cursor: Cursor, webhook_id: int, delivery_id: int) -> Delivery | None:
    """Return one try of a webhook, None if it is not known any more."""
    cursor.execute(f"{_SELECT} where webhook_id = %s and delivery_id = %s", (webhook_id, delivery_id))
    row = cursor.fetchone()
    return _delivery(*row) if row else None


_SELECT = """
    select delivery_id, tried_at, next_try_at, message_id, kind, body, cause, attempt, status, error, seconds
    from intake.webhook_delivery"""


def _delivery(  # noqa: PLR0913 - a row's columns
    delivery_id: int,
    tried_at: datetime,
    next_try_at: datetime | None,
    message_id: str,
    kind: str,
    body: str,
    cause: Cause,
    attempt: int,
    status: int | None,
    error: str | None,
    seconds: float,
) -> Delivery:
    tried = Try(
        message_id=message_id,
        kind=kind,
        body=body,
        cause=cause,
        attempt=attempt,
        status=status,
        error=error,
        seconds=seconds,
    )
    return Delivery(delivery_id, tried, tried_at, next_try_at)


def _of(turn: Turn) -> dict[str, object]:
    return {"id": turn.webhook_id, "generation": turn.generation, "owner": turn.owner, "office": OFFICE}
