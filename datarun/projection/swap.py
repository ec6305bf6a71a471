"""One read model put in the other's place, while gateways read it and the live projector writes it.

Both are held at equal offsets for the moment of the renaming, so the projector's next record is the first one that
neither has seen. Readers wait for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import cast

from psycopg2.errors import LockNotAvailable
from psycopg2.extensions import connection as Connection

from datarun.errors import DatarunError, Retryable
from datarun.log import EventLog, StoredRecord
from datarun.projection.holes import apply_over_holes
from datarun.projection.offsets import Offsets, lock_offsets, move_offsets, read_offsets
from datarun.projection.rebuild import Rebuild
from datarun.projection.share import Ground, opened, project
from datarun.projection.statements import NOTIFY, TAKE_AWAY, in_schema
from datarun.projection.verify import Verdict, verify_alone
from datarun.readmodel import NEXT, OLD, SCHEMA
from datarun.readmodel.schema import put_in_place, version_of

LOCK_SECONDS = 5.0
"""So long a projector's transaction may take before a swap gives up; no projector can begin another meanwhile."""
READ_SECONDS = 0.01
"""A read takes all of it, to gather records."""
EMPTY_READS = 30
"""After so many it is looked up whether there is anything left to read."""
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
    with (
        opened(rebuild.ground) as (event_log, writing),
        closing(_Pursuit(rebuild.ground, event_log, writing)) as pursuit,
    ):
        pursuit.come_near()
        with _held(connection) as held, connection.cursor() as cursor:
            caught_up = pursuit.catch_up()
            # A rebuild that was killed may have left processes that still write.
            cursor.execute(in_schema(TAKE_AWAY, rebuild.ground.schema))
            renaming = time.monotonic()
            put_in_place(connection, rebuild.ground.schema, kept_as=kept_as)
            cursor.execute(NOTIFY)
            connection.commit()
            ended = time.monotonic()
    return Swapped(ended - held, ended - renaming, caught_up, verdict)


class _Pursuit:
    """The rebuilt read model on the heels of the live one, over a reader that is under way when it counts."""

    def __init__(self, ground: Ground, event_log: EventLog, writing: Connection) -> None:
        self._ground = ground
        self._log = event_log
        self._writing = writing
        here = self._offsets(ground.schema)
        start = {tp: here.get(tp, 0) for tp in _live_offsets(writing)}
        self._reader = cast(
            "Generator[list[StoredRecord], None, None]", event_log.read(start, idle_seconds=READ_SECONDS)
        )

    def come_near(self) -> None:
        """Follow until nothing is missing for a moment, for some seconds at the most."""
        deadline = time.monotonic() + LOCK_SECONDS
        while self._missing(_live_offsets(self._writing)) and time.monotonic() < deadline:
            self._apply(next(self._reader))

    def catch_up(self) -> int:
        """Apply what the live one, which does not move now, is ahead by, and return how many records that were."""
        until, count, empty = _live_offsets(self._writing), 0, 0
        while (missing := self._missing(until)) and empty < EMPTY_READS:
            records = next(self._reader)
            count += self._apply(records)
            empty = 0 if records else empty + 1
        if missing:
            count += project(self._ground, self._log, self._writing, missing, until)
            # What is missing after that is nowhere: forgotten by a compacted topic, or a hole.
            with self._writing, self._writing.cursor() as cursor:
                here = lock_offsets(cursor, until, schema=self._ground.schema)
                ends = {tp: max(here[tp], end) for tp, end in until.items()}
                move_offsets(cursor, ends, schema=self._ground.schema)
        return count

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def _apply(self, records: list[StoredRecord]) -> int:
        if not records:
            return 0
        ground = self._ground
        return apply_over_holes(
            records, self._writing, catalogue=ground.catalogue, open_log=lambda: self._log, schema=ground.schema
        ).count

    def _missing(self, until: Offsets) -> Offsets:
        here = self._offsets(self._ground.schema)
        return {tp: here.get(tp, 0) for tp, end in until.items() if here.get(tp, 0) < end}

    def _offsets(self, schema: str) -> Offsets:
        with self._writing, self._writing.cursor() as cursor:
            return read_offsets(cursor, schema=schema)


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


def _live_offsets(connection: Connection) -> Offsets:
    with connection, connection.cursor() as cursor:
        return read_offsets(cursor, schema=SCHEMA) if version_of(connection, SCHEMA) else {}
