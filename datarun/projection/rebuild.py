"""The read model from offset 0 into another schema, by plain loops over the log and the same `apply`.

Every batch commits its offsets, so an interrupted rebuild goes on where it was, whatever killed it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

from psycopg2.errors import LockNotAvailable
from psycopg2.extensions import connection as Connection

from datarun.errors import DatarunError
from datarun.projection.offsets import Offsets, lock_offsets, move_offsets, read_offsets
from datarun.projection.share import Ground, project_share
from datarun.readmodel import SCHEMA, VERSION
from datarun.readmodel.schema import create_read_model, drop_read_model, version_of
from datarun.topics import PROJECTED

REPORT_SECONDS = 0.2
ALONE_SECONDS = 2
"""A command that was killed lets go as soon as Postgres notices."""
_ALONE = (
    f"set local lock_timeout = '{ALONE_SECONDS}s'; select pg_advisory_lock(hashtext('datarun.projection.maintenance'))"
)

Progress = Callable[[int, int], None]
"""Told how many records are projected and how many there are to project."""


class UnderWay(DatarunError):
    """Another command is at work on the read models of this database."""


class NotBuilt(DatarunError):
    """There is no such read model."""


class Rebuild:
    """One schema made from the log."""

    def __init__(self, ground: Ground, *, progress: Progress) -> None:
        self.ground = ground
        self.applied = 0
        self.seconds = 0.0
        self._progress = progress

    def build(self, *, fresh: bool = False) -> None:
        """Make the schema, unless it is there, and project up to where the live read model is, or to the log's end.

        Raises UnderWay, LogUnavailable, and psycopg2's OperationalError; a later call goes on from there.
        """
        with self.alone() as connection:
            with connection:
                if fresh or version_of(connection, self.ground.schema) not in (None, VERSION):
                    drop_read_model(connection, schema=self.ground.schema)
                create_read_model(connection, schema=self.ground.schema)
            self.bring_to(connection, self._goal(connection))

    def check_built(self, connection: Connection) -> None:
        """Raise NotBuilt unless the schema is there and this program's."""
        version = version_of(connection, self.ground.schema)
        if version is None:
            raise NotBuilt(f"there is no {self.ground.schema}")
        if version != VERSION:
            raise NotBuilt(f"{self.ground.schema} is of version {version}, this program makes {VERSION}")

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """Yield a connection whose end lets others work on the read models again; raises UnderWay."""
        connection = self.ground.open_database()
        try:
            with connection, connection.cursor() as cursor:
                try:
                    cursor.execute(_ALONE)
                except LockNotAvailable as error:
                    raise UnderWay from error
            yield connection
        finally:
            connection.close()

    def bring_to(self, connection: Connection, until: Offsets) -> Offsets:
        """Apply what lies before the given offsets and return where the schema is then; commits."""
        if not until:
            return {}
        started, before = time.monotonic(), self.applied
        here = self._here(connection, until)
        left = {tp: end - here[tp] for tp, end in until.items() if here[tp] < end}
        total = before + sum(left.values())
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(project_share, self.ground, {tp: here[tp] for tp in left}, until)
            while wait([running], REPORT_SECONDS).not_done:
                now = self._here(connection, until)
                self._progress(before + sum(now[tp] - here[tp] for tp in left), total)
            self.applied += running.result()
        self._progress(self.applied, total)
        self.seconds += time.monotonic() - started
        return self._pass_over(connection, until)

    def _goal(self, connection: Connection) -> Offsets:
        """Return the live read model's offsets, so that the two can be compared; without one the log's end."""
        with connection, connection.cursor() as cursor:
            live = read_offsets(cursor, schema=SCHEMA) if version_of(connection, SCHEMA) else {}
        if any(live.values()):
            return live
        event_log = self.ground.open_log()
        try:
            return event_log.end_offsets([self.ground.catalogue.full_name(topic) for topic in PROJECTED])
        finally:
            event_log.close()

    def _here(self, connection: Connection, until: Offsets) -> Offsets:
        with connection, connection.cursor() as cursor:
            found = read_offsets(cursor, schema=self.ground.schema)
        return {tp: found.get(tp, 0) for tp in until}

    def _pass_over(self, connection: Connection, until: Offsets) -> Offsets:
        """Move on where nothing is left to read before the goal: forgotten by a compacted topic, or a hole."""
        with connection, connection.cursor() as cursor:
            offsets = lock_offsets(cursor, until, schema=self.ground.schema)
            for tp, end in until.items():
                offsets[tp] = max(offsets[tp], end)
            move_offsets(cursor, offsets, schema=self.ground.schema)
            return offsets
