"""Where the log ends at this moment; many who ask at once are answered by one look that began after they asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from datarun.log import EventLog, TopicPartition

Ends = dict[TopicPartition, int]


class LogEnd:
    """Asks the brokers in a thread of its own, so that one that is away holds up nothing else."""

    def __init__(self, event_log: EventLog) -> None:
        self._log = event_log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-end")
        self._turn = asyncio.Lock()
        self._next: dict[tuple[str, ...], asyncio.Task[Ends]] = {}

    async def of(self, topics: Sequence[str]) -> Ends:
        """Return the offset the next record of each partition will get; raises LogUnavailable."""
        key = tuple(topics)
        look = self._next.get(key)
        if look is None:
            look = self._next[key] = asyncio.get_running_loop().create_task(self._look(key))
            look.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(look)

    def close(self) -> None:
        """Let go of the thread; what it asks ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _look(self, key: tuple[str, ...]) -> Ends:
        async with self._turn:
            # A look under way may have missed what later askers know of, so they get the next one.
            del self._next[key]
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._log.end_offsets, key)
