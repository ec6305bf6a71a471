"""The office of the gateway that sends: one holds it, it is free when that is gone; without it nothing is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor

from datarun.db import connect
from datarun.intake import deliveries, offices, webhooks
from datarun.intake.deliveries import OFFICE, Standing, Try, Turn
from datarun.intake.outbox import OWNER_LOCK
from datarun.intake.webhooks import Change, New, Wanted, Webhook

T = TypeVar("T")
Run = Callable[[Callable[[Cursor], Any]], Any]
TRY = Try(
    message_id="1", kind="FoldTested", body="{}", cause="event", attempt=1, status=500, error="It broke.", seconds=0.1
)


@pytest.fixture
def run(postgres_url: str) -> Run:
    """Return what runs a statement in a transaction of its own."""

    def run(work: Callable[[Cursor], T]) -> T:
        connection = connect(postgres_url)
        try:
            with connection, connection.cursor() as cursor:
                return work(cursor)
        finally:
            connection.close()

    return run


def hold(run: Run, owner: int) -> bool:
    """Try to hold the office."""
    return bool(run(lambda cursor: offices.hold(cursor, OFFICE, owner)))


def later(run: Run, seconds: float) -> None:
    """Let the lease be so much older."""
    statement = "update intake.office set leased_until = leased_until - make_interval(secs => %s)"
    run(lambda cursor: cursor.execute(statement, (seconds,)))


def test_one_holds_it_until_its_lease_is_over(run: Run, postgres_url: str) -> None:
    """Whoever lives and renews keeps it; one that lives and does not renew loses it with the lease."""
    with psycopg2.connect(connect(postgres_url).dsn) as living, living.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(%s, 1)", (OWNER_LOCK,))
        assert hold(run, 1)
        assert not hold(run, 2)
        later(run, 9)
        assert not hold(run, 2)
        assert hold(run, 1)
        later(run, 11)
        assert hold(run, 2)
        assert not hold(run, 1)
        living.rollback()
    living.close()


def test_it_is_free_soon_after_its_holder_is_gone(run: Run) -> None:
    """Not at once: who reconnects has a moment."""
    assert hold(run, 1)
    assert not hold(run, 2)
    later(run, offices.GRACE_SECONDS + 0.1)
    assert hold(run, 2)
    run(lambda cursor: offices.leave(cursor, OFFICE, 1))
    assert not hold(run, 3)
    run(lambda cursor: offices.leave(cursor, OFFICE, 2))
    assert hold(run, 3)


def webhook(run: Run) -> Webhook:
    """Create a webhook."""
    new = New(
        username="ada", url="http://x/", description="", wanted=Wanted(["FoldTested"]), secret=b"x", offsets=[0] * 12
    )
    made: Webhook = run(lambda cursor: webhooks.create(cursor, new))
    return made


def test_who_lost_the_office_records_nothing(run: Run) -> None:
    """Neither a delivery, nor a failure, nor a place; nor does who sends a webhook that was changed since."""
    made = webhook(run)
    assert hold(run, 2)
    turn = Turn(made.webhook_id, made.generation, 1)
    own = Turn(made.webhook_id, made.generation, 2)

    def outcomes(turn: Turn) -> list[Any]:
        return [
            run(lambda cursor: deliveries.move(cursor, turn, [1] * 12)),
            run(lambda cursor: deliveries.deliver(cursor, turn, [2] * 12, TRY)),
            run(lambda cursor: deliveries.fail(cursor, turn, TRY, pause_seconds=1, give_up_seconds=9)),
        ]

    assert outcomes(turn) == [False, None, None]
    assert run(lambda cursor: deliveries.ls(cursor, made.webhook_id)) == []
    assert outcomes(own) == [True, Standing(is_delivered=True), Standing(pause_seconds=1)]
    found = run(lambda cursor: webhooks.find(cursor, made.webhook_id, only_of="ada"))
    assert (found.offsets, found.attempts, found.last_error) == ([2] * 12, 1, "It broke.")
    assert 0 < found.pause_seconds <= 1
    run(lambda cursor: webhooks.change(cursor, made.webhook_id, Change(url="http://y/"), only_of=None))
    assert outcomes(own) == [False, None, None]
    run(lambda cursor: webhooks.delete(cursor, made.webhook_id, only_of=None))
    assert run(lambda cursor: deliveries.record(cursor, made.webhook_id, TRY)) is None
