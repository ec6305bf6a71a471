"""Gathers what comes at once, so that one transaction does for many; what comes alone waits for nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

TOGETHER = 64

Work = Callable[[Sequence[Any], float], Awaitable[Sequence[Any]]]
"""Returns a result or an exception for each of a group, within the seconds that its oldest member still waits."""


@dataclass(slots=True)
class _Waiting:
    item: Any
    work: Work
    until: float
    done: asyncio.Future[Any]


class Gathering:
    """One group at a time, of what came while the one before was under way; every method is the event loop's."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: deque[_Waiting] = deque()
        self._group: asyncio.Task[None] | None = None

    async def join(self, item: Any, work: Work) -> Any:
        """Return what the work makes of an item, beside others that ask for the same work; raises what it raises."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(item, work, loop.time() + self._seconds, loop.create_future())
        self._waiting.append(waiting)
        # What comes in the same turn of the loop is taken along.
        loop.call_soon(self._start)
        return await waiting.done

    def _start(self) -> None:
        if not self._waiting or self._group is not None:
            return
        group = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
        self._group = asyncio.get_running_loop().create_task(_run(group))
        self._group.add_done_callback(self._ended)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._group = None
        self._start()


async def _run(group: list[_Waiting]) -> None:
    seconds = group[0].until - asyncio.get_running_loop().time()
    try:
        made = await group[0].work([waiting.item for waiting in group], seconds)
    except Exception as error:  # noqa: BLE001 - each of them raises it
        made = [error] * len(group)
    for waiting, result in zip(group, made, strict=True):
        if waiting.done.done():
            continue
        if isinstance(result, Exception):
            waiting.done.set_exception(result)
        else:
            waiting.done.set_result(result)
