"""Postgres from an event loop: a few threads with a connection each, every answer within seconds or an error."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg2
from psycopg2.errors import InvalidSchemaName, UndefinedTable
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from datarun.db import connect
from datarun.errors import DatabaseUnavailable

T = TypeVar("T")

ANSWER_SECONDS = 4.0
_AWAY = (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.InternalError, UndefinedTable, InvalidSchemaName)


class _Call:
    """One transaction under way; whoever waits for it can give it up, then it is not committed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._given_up = False

    def use(self, connection: Connection) -> None:
        with self._lock:
            self._check()
            self._connection = connection

    def check(self) -> None:
        with self._lock:
            self._check()

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

    async def run(self, work: Callable[[Cursor], T]) -> T:
        """Return what `work` returned once its transaction is committed; raises DatabaseUnavailable within 4 s.

        `work` may run twice: a connection that turns out dead before the commit is replaced once.
        """
        call = _Call()
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._run, call, work)
        future.add_done_callback(_retrieve)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await asyncio.shield(future)
        except TimeoutError as error:
            call.give_up()
            raise DatabaseUnavailable("Postgres does not answer") from error

    def close(self) -> None:
        """Let go of the threads; what they run ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, call: _Call, work: Callable[[Cursor], T]) -> T:
        call.check()
        old: Connection | None = getattr(self._local, "connection", None)
        if old is not None and not old.closed:
            try:
                return self._work(old, call, work)
            except _AWAY:
                old.close()
        try:
            self._local.connection = connect(self._url, application="datarun-gateway")
            return self._work(self._local.connection, call, work)
        except _AWAY as error:
            raise DatabaseUnavailable(f"Postgres does not answer: {error}") from error

    def _work(self, connection: Connection, call: _Call, work: Callable[[Cursor], T]) -> T:
        try:
            call.use(connection)
            with connection.cursor() as cursor:
                result = work(cursor)
            call.check()
            _commit(connection)
        except BaseException:
            _roll_back(connection)
            raise
        finally:
            call.leave()
        return result


def _commit(connection: Connection) -> None:
    try:
        connection.commit()
    except psycopg2.Error as error:
        # Whether it is recorded is not known; running it again could record it twice.
        connection.close()
        raise DatabaseUnavailable(f"Postgres went away during a commit: {error}") from error


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
