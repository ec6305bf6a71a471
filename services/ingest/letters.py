"""What the log says of dead letters, as this gateway knows it; who asks at once shares a look that began afterwards."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from datarun.dead_letters.ledger import Known, Ledger
from datarun.log import EventLog
from datarun.topics import Catalogue

MOST_LETTERS = 100_000
"""Of the letters of runners and of the decisions, each; a flood of more takes no more memory."""


class Letters:
    """Reads the topic of dead letters on, in a thread of its own, when somebody asks."""

    def __init__(self, event_log: EventLog, catalogue: Catalogue) -> None:
        self._ledger = Ledger(event_log, catalogue=catalogue, most=MOST_LETTERS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="letters")
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[Known] | None = None
        self.last: Known | None = None
        """What was known the last time, None before the first."""

    async def known(self, *, seconds: float) -> Known:
        """Return what is known up to the present; raises LogUnavailable, TimeoutError within so many seconds."""
        look = self._next
        if look is None:
            look = self._next = asyncio.get_running_loop().create_task(self._look())
            look.add_done_callback(lambda done: done.cancelled() or done.exception())
        async with asyncio.timeout(seconds):
            return await asyncio.shield(look)

    def close(self) -> None:
        """Let go of the thread; what it reads ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self) -> Known:
        async with self._turn:
            # A look under way may have missed what later askers know of, so they get the next one.
            self._next = None
            self.last = await asyncio.get_running_loop().run_in_executor(self._thread, self._ledger.read_on)
            return self.last


LETTERS = web.AppKey("letters", Letters)
