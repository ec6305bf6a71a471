"""What the log says of dead letters, as this gateway knows it; who asks at once shares a look that began afterwards."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiohttp import web

from datarun.dead_letters.ledger import Known, Ledger, patience
from datarun.log import EventLog
from datarun.readmodel.orphans import Patience
from datarun.settings import Settings

MOST_LETTERS = 100_000
"""Of the letters of runners and of the decisions, each; a flood of more takes no more memory."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the log says of dead letters at a moment, and which runs without a request are some at that moment."""

    known: Known
    patience: Patience


class Letters:
    """Reads the topic of dead letters on, in a thread of its own, when somebody asks."""

    def __init__(self, event_log: EventLog, settings: Settings) -> None:
        self._log = event_log
        self._settings = settings
        self._ledger = Ledger(event_log, catalogue=settings.catalogue, most=MOST_LETTERS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="letters")
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Look] | None = None
        self.last: Look | None = None
        """What was found the last time, None before the first."""

    async def look(self, *, seconds: float) -> Look:
        """Return what the log says up to the present; raises LogUnavailable, TimeoutError within so many seconds."""
        look = self._next
        if look is None:
            look = self._next = asyncio.get_running_loop().create_task(self._look())
            look.add_done_callback(lambda done: done.cancelled() or done.exception())
        async with asyncio.timeout(seconds):
            return await asyncio.shield(look)

    def close(self) -> None:
        """Let go of the thread; what it reads ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> Look:
        async with self._turn:
            # A look under way may have missed what later askers know of, so they get the next one.
            self._next = None
            self.last = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)
            return self.last

    def _read(self) -> Look:
        settings = self._settings
        overdue = patience(self._log, catalogue=settings.catalogue, seconds=settings.orphan_seconds)
        return Look(self._ledger.read_on(), overdue)


LETTERS = web.AppKey("letters", Letters)
