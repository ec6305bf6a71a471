"""The projector's end of the database: one connection, one thread, and patience when Postgres is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog
from psycopg2 import InterfaceError, OperationalError
from psycopg2.extensions import connection as Connection

from datarun.db import connect
from datarun.errors import LogUnavailable
from datarun.log import EventLog, StoredRecord
from datarun.projection.apply import Applied
from datarun.projection.holes import OpenLog, apply_over_holes
from datarun.projection.offsets import Offsets, lock_offsets, move_offsets
from datarun.readmodel import SCHEMA
from datarun.topics import Catalogue, Kind

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
IDLE_SECONDS = 20.0
"""Decoding the largest batch takes a second; a projector that is silent for so long in a transaction was stopped."""

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Writer:
    """Applies batches; a database that is away is waited for, however long, and nothing is dropped meanwhile."""

    def __init__(self, url: str, *, catalogue: Catalogue, open_log: OpenLog) -> None:
        self._url = url
        self._open_log = open_log
        self._log: EventLog | None = None
        self._catalogue = catalogue
        self._connection: Connection | None = None

    def prepare(self) -> None:
        """Make the tables of the read model where they are missing."""
        self._patiently(_make_tables)

    def apply(self, records: Sequence[StoredRecord]) -> Applied:
        """Bring records into the read model; returns once they are committed there."""
        return self._patiently(
            lambda connection: apply_over_holes(
                records, connection, catalogue=self._catalogue, open_log=self._opened_log
            )
        )

    def positions(self, starts: Offsets) -> Offsets:
        """Return where to read on, given the first offset each partition still has."""
        return self._patiently(lambda connection: _positions(connection, starts, catalogue=self._catalogue))

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _opened_log(self) -> EventLog:
        """Return the log to look holes up in; most projectors never meet one."""
        if self._log is None:
            self._log = self._open_log()
        return self._log

    def _patiently(self, task: Callable[[Connection], T]) -> T:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return task(self._connected())
            except (OperationalError, InterfaceError, LogUnavailable) as error:
                log.warning("projector.server_away", error=str(error).strip(), retry_in_seconds=pause)
                self.close()
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = connect(self._url, application="datarun-projector", idle_seconds=IDLE_SECONDS)
            with connection, connection.cursor() as cursor:
                # A crash of Postgres may take the last commits: offsets go with their rows, and the log has both.
                cursor.execute("set synchronous_commit = off")
            self._connection = connection
        return self._connection


def _positions(connection: Connection, starts: Offsets, *, catalogue: Catalogue) -> Offsets:
    with connection, connection.cursor() as cursor:
        offsets = lock_offsets(cursor, starts, schema=SCHEMA)
        for tp, start in starts.items():
            # What a compacted topic has forgotten is passed over; what another one has lost is a gap, and refused.
            if catalogue.topic(tp.topic).kind is Kind.STATE:
                offsets[tp] = max(offsets[tp], start)
        move_offsets(cursor, offsets, schema=SCHEMA)
        return offsets


def _make_tables(connection: Connection) -> None:
    with connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass(%s)", (f"{SCHEMA}.dead_letter",))
        if cursor.fetchone() == (None,):
            from datarun.readmodel.schema import create_read_model  # noqa: PLC0415 - only a new database pays for it

            cursor.execute("select pg_advisory_xact_lock(hashtext('datarun.upgrade'))")
            create_read_model(connection)
