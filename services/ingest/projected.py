"""How far the read model is, so that a client reads what it wrote: told by NOTIFY, looked up only while somebody waits.

The same connection holds the lock that tells other gateways that this one lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg2
import structlog
from psycopg2.extensions import connection as Connection

from datarun.db import connect
from datarun.errors import DatabaseUnavailable
from datarun.intake.outbox import OWNER_LOCK
from datarun.log import Position, TopicPartition
from datarun.readmodel.queries import projected_offsets
from services.ingest.database import Database

CHANNEL = "datarun_projected"
LOOK_SECONDS = 0.025
"""While somebody waits the offsets are read this often even without a NOTIFY."""
RECONNECT_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Projected:
    """The offsets the read model has reached, as far as this gateway knows."""

    def __init__(self, url: str, database: Database, *, owner: int, on_change: Callable[[], None]) -> None:
        self._url = url
        self._database = database
        self._owner = owner
        self._on_change = on_change
        self._next: dict[TopicPartition, int] = {}
        self._waiting: dict[asyncio.Future[None], Position] = {}
        self._look = asyncio.Event()
        self._lost = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start listening."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._listen_for_ever()), loop.create_task(self._look_for_ever())]

    async def stop(self) -> None:
        """Stop listening and give up the lock."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait(self, position: Position, *, seconds: float) -> bool:
        """Tell whether the read model has a record, now or within some seconds."""
        if self._has(position):
            return True
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = position
        self._look.set()
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return False
        finally:
            del self._waiting[future]
        return True

    def _has(self, position: Position) -> bool:
        return self._next.get(TopicPartition(position.topic, position.partition), 0) > position.offset

    async def _look_for_ever(self) -> None:
        while True:
            await self._prompt()
            if not self._waiting:
                continue
            try:
                self._next = await self._database.run(projected_offsets)
            except DatabaseUnavailable as error:
                log.debug("projected.not_read", reason=str(error))
            for future, position in self._waiting.items():
                if not future.done() and self._has(position):
                    future.set_result(None)

    async def _prompt(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS if self._waiting else None):
                await self._look.wait()
        except TimeoutError:
            return
        self._look.clear()

    async def _listen_for_ever(self) -> None:
        away = False
        while True:
            try:
                connection = await asyncio.to_thread(self._connect)
                away = False
                await self._listen(connection)
            except psycopg2.Error as error:
                if not away:
                    log.warning("projected.not_listening", reason=str(error).strip())
                away = True
            await asyncio.sleep(RECONNECT_SECONDS)

    def _connect(self) -> Connection:
        connection = connect(self._url, application="datarun-gateway-listener")
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"select pg_try_advisory_lock(%s, %s); listen {CHANNEL}", (OWNER_LOCK, self._owner))
        return connection

    async def _listen(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._lost.clear()
        self._on_change()
        descriptor = connection.fileno()
        loop.add_reader(descriptor, self._on_readable, connection)
        try:
            await self._lost.wait()
        finally:
            loop.remove_reader(descriptor)
            connection.close()

    def _on_readable(self, connection: Connection) -> None:
        try:
            connection.poll()
        except psycopg2.Error as error:
            log.warning("projected.not_listening", reason=str(error).strip())
            self._lost.set()
            return
        if connection.notifies:
            connection.notifies.clear()
            self._look.set()
            self._on_change()
