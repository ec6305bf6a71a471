"""One read model put in the other's place, while gateways read it and the live projector writes it.

Both are held at equal offsets for the moment of the renaming, so the projector's next record is the first one that
neither has seen. Readers wait for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg2.errors import LockNotAvailable
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from datarun.errors import DatarunError, Retryable
from datarun.log import EventLog
from datarun.projection.offsets import Offsets, lock_offsets, move_offsets, read_offsets
from datarun.projection.rebuild import Rebuild
from datarun.projection.share import opened, project
from datarun.projection.statements import NOTIFY, TAKE_AWAY, in_schema
from datarun.projection.verify import Verdict, verify_alone
from datarun.readmodel import NEXT, OLD, SCHEMA
from datarun.readmodel.schema import put_in_place, version_of

LOCK_SECONDS = 5.0
"""So long a projector's transaction may take before a swap gives up; no projector can begin another meanwhile."""
HELD_SECONDS = 10.0
"""A swap that is stopped while it holds the projection loses it after so long; nothing is changed then."""


class Different(DatarunError):
    """The rebuilt read model is not equal to the live one; `datarun projection diff` shows where."""


class ProjectorBusy(Retryable):
    """The live projector did not end its transaction in time; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Swapped:
    """What a swap took: how long the live projection was held, of that how long the schemas were being renamed."""

    held_seconds: float
    renaming_seconds: float
    caught_up: int
    """Records that came to the live read model after the comparison."""
    verdict: Verdict | None = None


def swap(rebuild: Rebuild, *, accept_differences: bool = False) -> Swapped:
    """Put the rebuilt read model in the live one's place and keep that as rm_old.

    Raises Different unless the two are equal or that does not matter, UnderWay, NotBuilt and ProjectorBusy.
    """
    with rebuild.alone() as connection:
        verdict = verify_alone(rebuild, connection)
        if not (verdict.equal or accept_differences):
            raise Different
        return _exchange(rebuild, connection, kept_as=OLD, verdict=verdict)


def roll_back(rebuild: Rebuild) -> Swapped:
    """Put rm_old, brought up to the live one's offsets, in its place again and keep that as rm_next."""
    with rebuild.alone() as connection:
        with connection:
            rebuild.check_built(connection)
        return _exchange(rebuild, connection, kept_as=NEXT, verdict=None)


def _exchange(rebuild: Rebuild, connection: Connection, *, kept_as: str, verdict: Verdict | None) -> Swapped:
    """Rename the rebuilt schema to the live name and the live one to another, whose former bearer is dropped."""
    rebuild.bring_to(connection, _live_offsets(connection))
    with opened(rebuild.ground) as (event_log, writing), _held(connection) as held:
        with connection.cursor() as cursor:
            caught_up = _catch_up(rebuild, cursor, event_log, writing)
            renaming = time.monotonic()
            put_in_place(connection, rebuild.ground.schema, kept_as=kept_as)
            cursor.execute(NOTIFY)
        connection.commit()
        ended = time.monotonic()
    return Swapped(ended - held, ended - renaming, caught_up, verdict)


@contextmanager
def _held(connection: Connection) -> Iterator[float]:
    """Keep the live projection from going on until the block commits or raises; yield when that began."""
    with connection, connection.cursor() as cursor:
        limits = "set local lock_timeout = %s; set local idle_in_transaction_session_timeout = %s"
        cursor.execute(limits, (f"{LOCK_SECONDS}s", f"{HELD_SECONDS}s"))
        started = time.monotonic()
        try:
            cursor.execute(in_schema(TAKE_AWAY, SCHEMA))
        except LockNotAvailable as error:
            raise ProjectorBusy from error
        yield started


def _catch_up(rebuild: Rebuild, cursor: Cursor, event_log: EventLog, writing: Connection) -> int:
    """Apply what the live read model has and the rebuilt one lacks, now that the first does not move."""
    ground = rebuild.ground
    until = read_offsets(cursor, schema=SCHEMA) if version_of(cursor.connection, SCHEMA) else {}
    here = read_offsets(cursor, schema=ground.schema)
    start = {tp: here.get(tp, 0) for tp, end in until.items() if here.get(tp, 0) < end}
    count = project(ground, event_log, writing, start, until) if start else 0
    # A rebuild that was killed may have left processes that still write.
    cursor.execute(in_schema(TAKE_AWAY, ground.schema))
    here = lock_offsets(cursor, until, schema=ground.schema) if until else {}
    # What is still missing is nowhere: forgotten by a compacted topic, or a hole.
    move_offsets(cursor, {tp: max(here[tp], end) for tp, end in until.items()}, schema=ground.schema)
    return count


def _live_offsets(connection: Connection) -> Offsets:
    with connection, connection.cursor() as cursor:
        return read_offsets(cursor, schema=SCHEMA) if version_of(connection, SCHEMA) else {}
