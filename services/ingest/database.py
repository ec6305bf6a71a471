"""Postgres from an event loop: a few threads with a connection each, every answer within seconds or an error."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg2
import structlog
from psycopg2.errors import InvalidSchemaName, UndefinedTable
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from datarun.db import connect
from datarun.errors import DatabaseUnavailable, Unconfirmed

log = structlog.get_logger(__name__)
T = TypeVar("T")

ANSWER_SECONDS = 4.0
LOOK_SECONDS = 0.05
IDLE_SECONDS = 10.0
"""Nobody waits any more for a transaction that rests so long; its gateway was stopped, and holds locks."""
ALONE = ("max_parallel_workers_per_gather=0", "jit=off")
"""A worker process takes ten times as long to start as the largest of a gateway's questions takes to answer."""
_AWAY = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.InternalError, UndefinedTable, InvalidSchemaName)


IsRecorded = Callable[[Cursor, T], bool]
"""Tells on another connection whether what a transaction returned was committed."""


class _Call:
    """One transaction under way; whoever waits for it can give it up, then it is not committed any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._given_up = False
        self.is_open = False
        """Whether a commit was begun that is not known to have failed."""

    def use(self, connection: Connection) -> None:
        with self._lock:
            self._check()
            self._connection = connection

    def check(self) -> None:
        with self._lock:
            self._check()

    def begin_commit(self) -> None:
        with self._lock:
            self._check()
            self.is_open = True

    def leave(self) -> None:
        with self._lock:
            self._connection = None

    def _check(self) -> None:
        if self._given_up:
            raise DatabaseUnavailable("nobody waits for this any more")

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._connection is not None:
                _cut(self._connection)


class Database:
    """Runs functions of a cursor, each in a transaction of its own."""

    def __init__(self, url: str, *, threads: int = 4) -> None:
        self._url = url
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="sql")
        self._local = threading.local()

    async def run(
        self,
        work: Callable[[Cursor], T],
        *,
        is_recorded: IsRecorded[T] | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> T:
        """Return what `work` returned once its transaction is committed; raises DatabaseUnavailable within `seconds`.

        `work` may run twice: a connection that turns out dead before the commit is replaced once. Of one that dies
        during the commit `is_recorded` finds out how it ended; Unconfirmed is raised if it cannot in time.
        """
        call = _Call()
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._run, call, work, is_recorded)
        future.add_done_callback(_retrieve)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(future)
        except TimeoutError as error:
            call.give_up()
            if call.is_open and is_recorded is not None:
                raise Unconfirmed from error
            raise DatabaseUnavailable("Postgres does not answer") from error

    def close(self) -> None:
        """Let go of the threads; what they run ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, call: _Call, work: Callable[[Cursor], T], is_recorded: IsRecorded[T] | None) -> T:
        call.check()
        old: Connection | None = getattr(self._local, "connection", None)
        if old is not None and not old.closed:
            try:
                return self._work(old, call, work, is_recorded)
            except _AWAY:
                old.close()
        try:
            return self._work(self._connect(), call, work, is_recorded)
        except _AWAY as error:
            raise DatabaseUnavailable(f"Postgres does not answer: {error}") from error

    def _connect(self) -> Connection:
        self._local.connection = connection = connect(
            self._url, application="datarun-gateway", idle_seconds=IDLE_SECONDS, settings=ALONE
        )
        return connection

    def _work(
        self, connection: Connection, call: _Call, work: Callable[[Cursor], T], is_recorded: IsRecorded[T] | None
    ) -> T:
        try:
            call.use(connection)
            with connection.cursor() as cursor:
                result = work(cursor)
            call.begin_commit()
            server_process = connection.info.backend_pid
            lost = _commit(connection)
        except BaseException:
            _roll_back(connection)
            raise
        finally:
            call.leave()
        if lost is not None and not self._was_recorded(call, result, is_recorded, server_process):
            raise DatabaseUnavailable(f"Postgres went away before a commit: {lost}") from lost
        return result

    def _was_recorded(self, call: _Call, result: T, is_recorded: IsRecorded[T] | None, server_process: int) -> bool:
        """Find out how a commit ended; raises DatabaseUnavailable when nobody waits for that any more."""
        while is_recorded is not None:
            call.check()
            try:
                connection = self._connect()
                call.use(connection)
                with connection, connection.cursor() as cursor:
                    cursor.execute("select exists (select from pg_stat_activity where pid = %s)", (server_process,))
                    still_works = cursor.fetchall() == [(True,)]
                    # Looked for after its process, so that it is not missed in between.
                    if is_recorded(cursor, result):
                        return True
                    if not still_works:
                        break
            except _AWAY as error:
                log.debug("commit.not_looked_up", reason=str(error))
            finally:
                call.leave()
            time.sleep(LOOK_SECONDS)
        call.is_open = False
        return False


def _commit(connection: Connection) -> psycopg2.Error | None:
    """Commit; returns the error that leaves open whether it was, raises DatabaseUnavailable if it was not."""
    try:
        connection.commit()
    except psycopg2.Error as error:
        if not connection.closed:
            connection.close()
            raise DatabaseUnavailable(f"Postgres refused a commit: {error}") from error
        return error
    return None


def _roll_back(connection: Connection) -> None:
    if connection.closed:
        return
    try:
        connection.rollback()
    except psycopg2.Error:
        connection.close()


def _cut(connection: Connection) -> None:
    # A thread inside libpq waits for ever on a server that hangs; an ended socket wakes it.
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg2.Error):
        return


def _retrieve(future: asyncio.Future[Any] | Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
