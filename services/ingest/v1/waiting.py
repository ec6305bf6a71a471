"""`Prefer: wait`: how long a client would wait, and folds that clients wait for, all looked up together."""

from __future__ import annotations

import asyncio
import re
from functools import partial

import structlog
from aiohttp import web

from datarun.errors import DatabaseUnavailable
from datarun.readmodel import listing
from services.ingest.database import Database

LONGEST_WAIT = 60
LOOK_SECONDS = 0.25
MOST_WAITING = 1000
"""Who comes later is answered at once: a preference may be left unheeded."""
_WAIT = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,3})(?:$|[,;\s])")

log = structlog.get_logger(__name__)


def asked_wait(request: web.Request) -> int:
    """Return how many seconds a client would wait, 0 when it did not say so."""
    found = _WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), LONGEST_WAIT) if found else 0


class Ends:
    """Tells who waits that a fold has ended; it looks only while somebody waits, once for all."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._looks: asyncio.Task[None] | None = None
        self._is_stopping = False

    async def wait(self, database: Database, fold_id: int, *, seconds: float) -> bool:
        """Wait until a fold has ended, for so many seconds at the most; False when there is no room to wait."""
        if self._is_stopping or len(self._waiting) >= MOST_WAITING:
            return False
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._waiting[future] = fold_id
        if self._looks is None or self._looks.done():
            self._looks = loop.create_task(self._look(database))
        try:
            await asyncio.wait([future], timeout=seconds)
        finally:
            del self._waiting[future]
        return True

    def stop(self) -> None:
        """Let everybody go."""
        self._is_stopping = True
        self._wake(set(self._waiting.values()))

    async def _look(self, database: Database) -> None:
        while self._waiting:
            ids = sorted(set(self._waiting.values()))
            try:
                found = await database.run(partial(listing.find_folds, ids=ids))
            except DatabaseUnavailable as error:
                log.debug("waiting.not_looked", reason=str(error))
            else:
                self._wake({fold.fold_id for fold in found if fold.has_ended})
            await asyncio.sleep(LOOK_SECONDS)

    def _wake(self, ended: set[int]) -> None:
        for future, fold_id in self._waiting.items():
            if fold_id in ended and not future.done():
                future.set_result(None)


ENDS = web.AppKey("ends", Ends)
