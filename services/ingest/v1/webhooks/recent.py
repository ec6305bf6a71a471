"""The newest stretch of the log of folds, read once for all webhooks; who is further behind reads the log itself.

A place that is not before the stretch's beginning lacks nothing of what the stretch holds behind it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from datarun.errors import DatabaseUnavailable
from datarun.log import StoredRecord
from services.ingest.refusals import Refusal
from services.ingest.v1.places import Place
from services.ingest.v1.tail import Tail
from services.ingest.v1.webhooks.notices import Notice, notice

MOST_KEPT = 10_000
AT_ONCE = 500
"""So many notices are handed out at a time, about."""
SLICE = 100
READ_BACK_SECONDS = 4.0
READ_BACK_AT_ONCE = 4
IDLE_SECONDS = 5.0
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)

Owners = Callable[[Sequence[int]], Awaitable[Mapping[int, str]]]
"""Tells whose submissions some folds are of; may raise DatabaseUnavailable."""


class _Placed(Protocol):
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


@dataclass(slots=True)
class Reading:
    """How far one webhook has read."""

    place: Place
    number: int = 0
    """Of the next notice of the stretch to look at."""


class Recent:
    """The stretch; `follow` lets it grow, and forgets its oldest notices."""

    def __init__(
        self, tail: Tail, owners: Owners, start: Place, *, most: int = MOST_KEPT, at_once: int = AT_ONCE
    ) -> None:
        self._tail = tail
        self._owners = owners
        self._most = most
        self._at_once = at_once
        self._kept: deque[Notice] = deque()
        self._seen = 0
        self._since = Place(list(start.offsets))
        self._until = Place(list(start.offsets))
        self._grown = asyncio.Event()
        self._reading_back = asyncio.Semaphore(READ_BACK_AT_ONCE)

    async def follow(self) -> None:
        """Read what comes, for ever."""
        while True:
            try:
                async with self._tail.follow(self._until) as batches:
                    async for batch in batches:
                        if batch:
                            await self._take(batch)
            except (Refusal, DatabaseUnavailable) as error:
                log.warning("webhooks.log_not_read", reason=str(error))
            await asyncio.sleep(RETRY_SECONDS)

    async def read(self, reading: Reading) -> list[Notice]:
        """Return what follows, and move behind it; waits for a while if there is nothing, and may return nothing."""
        while all(at >= since for at, since in zip(reading.place.offsets, self._since.offsets, strict=True)):
            if found := self._handed_out(reading):
                return found
            reading.place = reading.place.furthest(self._until.offsets)
            if not await self._grows():
                return []
        try:
            return await self._read_back(reading)
        except (Refusal, DatabaseUnavailable) as error:
            log.warning("webhooks.log_not_read", reason=str(error))
            await asyncio.sleep(RETRY_SECONDS)
            return []

    async def _grows(self) -> bool:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await self._grown.wait()
        except TimeoutError:
            return False
        return True

    async def _take(self, batch: Sequence[StoredRecord]) -> None:
        found = await self._owned(batch)
        self._kept += found
        self._seen += len(found)
        _pass_by(self._until, batch)
        while len(self._kept) > self._most:
            _pass_by(self._since, [self._kept.popleft()])
        self._grown.set()
        self._grown = asyncio.Event()

    def _handed_out(self, reading: Reading) -> list[Notice]:
        while reading.number < self._seen:
            begin = len(self._kept) - min(self._seen - reading.number, len(self._kept))
            end = min(begin + self._at_once, len(self._kept))
            # Near its end a deque is reached at once.
            found = [self._kept[number] for number in range(begin, end)]
            reading.number = self._seen - len(self._kept) + end
            unread = [one for one in found if one.offset >= reading.place.offsets[one.partition]]
            _pass_by(reading.place, unread)
            if unread:
                return unread
        return []

    async def _read_back(self, reading: Reading) -> list[Notice]:
        """Read on in the log itself, to its end or for a while."""
        async with self._reading_back:
            target, loop = list(self._until.offsets), asyncio.get_running_loop()
            deadline = loop.time() + READ_BACK_SECONDS
            place, found = Place(list(reading.place.offsets)), list[Notice]()
            async with self._tail.follow(place, until_end=True) as batches:
                async for batch in batches:
                    found += await self._owned(batch)
                    _pass_by(place, batch)
                    if len(found) >= self._at_once or loop.time() > deadline:
                        break
                else:
                    # What is left before the end was never there: a transaction's marks move no place.
                    place = place.furthest(target)
            # Only now: what failed halfway is read again.
            reading.place = place
            return found

    async def _owned(self, batch: Sequence[StoredRecord]) -> list[Notice]:
        found: list[Notice] = []
        for start in range(0, len(batch), SLICE):
            found += [
                told
                for record in batch[start : start + SLICE]
                if (told := notice(record, self._tail.catalogue)) is not None
            ]
            # Requests have their turn while much is read back.
            await asyncio.sleep(0)
        if not found:
            return []
        owners = await self._owners(sorted({told.fold_id for told in found}))
        return [replace(told, owner=owners.get(told.fold_id)) for told in found]


def _pass_by(place: Place, passed: Sequence[_Placed]) -> None:
    for one in passed:
        place.offsets[one.partition] = one.offset + 1
