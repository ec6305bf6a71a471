"""Following the log of folds for clients: a thread and a reader each, so there are only so many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from aiohttp import web

from datarun.errors import LogUnavailable
from datarun.log import EventLog, StoredRecord
from datarun.topics import Catalogue
from services.ingest.refusals import detail
from services.ingest.v1.places import Place

AT_ONCE = 32
IDLE_SECONDS = 0.2
"""How late a record is seen at the most; a read waits so long for more."""

Batch = list[StoredRecord]


class _Reader:
    """The batches of one follower; a step and the end never meet, also when nobody waits for the step any more."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._lock = threading.Lock()

    def step(self) -> Batch | None:
        with self._lock:
            return next(self._batches, None)

    def close(self) -> None:
        with self._lock:
            close = getattr(self._batches, "close", None)
            if close is not None:
                close()


class Tail:
    """The followers of one gateway."""

    def __init__(self, event_log: EventLog, catalogue: Catalogue) -> None:
        self._log = event_log
        self.catalogue = catalogue
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="tail")
        self._followers = 0
        self.is_stopping = False

    @asynccontextmanager
    async def follow(self, place: Place, *, until_end: bool = False) -> AsyncIterator[AsyncIterator[Batch]]:
        """Let somebody follow the log from a place on: batches, empty ones while nothing comes. Raises Refusal."""
        if self._followers >= AT_ONCE:
            raise detail(503, "Too many follow the log at once.", Retry_After="5")
        self._followers += 1
        start = place.start(self.catalogue)
        reader = _Reader(self._log.read(start, until_end=until_end, idle_seconds=IDLE_SECONDS))
        try:
            yield self._batches(reader)
        finally:
            closed = asyncio.get_running_loop().run_in_executor(self._threads, reader.close)
            closed.add_done_callback(self._leave)

    def stop(self) -> None:
        """End every follower's batches."""
        self.is_stopping = True

    def close(self) -> None:
        """Let go of the threads; what they read ends by itself."""
        self._threads.shutdown(wait=False)

    def _leave(self, _: asyncio.Future[None]) -> None:
        self._followers -= 1

    async def _batches(self, reader: _Reader) -> AsyncIterator[Batch]:
        loop = asyncio.get_running_loop()
        while not self.is_stopping:
            try:
                batch = await loop.run_in_executor(self._threads, reader.step)
            except LogUnavailable as error:
                raise detail(503, "The log does not answer.", Retry_After="5") from error
            if batch is None:
                return
            yield batch


TAIL = web.AppKey("tail", Tail)
