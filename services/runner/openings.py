"""What the gateway says is open, page by page; asked in the background, so that nothing waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from datarun.errors import DatarunError
from datarun.gateway_client import GatewayClient
from services.runner.confirmation import Answer

PAGE_OFFSETS = 1000
FRESH_SECONDS = 5.0
ASK_SECONDS = 3.0
RETRY_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
"""A gateway that cannot tell for so long is away; it may merely be starting, or its read model."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What was open of a queue's offsets from `start` up to `until`, when it was asked; `end` is the queue's then."""

    start: int
    until: int
    end: int
    open: frozenset[int]
    asked_at: float

    def covers(self, offset: int) -> bool:
        """Tell whether the page knows of an offset."""
        return self.start <= offset < self.until


class Openings:
    """The newest page of each queue; without a client nobody can be asked."""

    def __init__(self, client: GatewayClient | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._pages: dict[str, Page] = {}
        self._asking: set[str] = set()
        self._failed_at: float | None = None
        self._away_since: float | None = None

    def end(self, queue: str) -> int:
        """Return where the queue ended when its newest page was asked for, 0 without one."""
        with self._lock:
            page = self._pages.get(queue)
        return page.end if page else 0

    def look(self, queue: str, offset: int, *, since: float | None = None) -> Answer:
        """Return what is known of a request; what was open counts if it was asked `since` then, or in the last 5 s.

        That a request is closed is final, so it counts however long ago it was asked.
        """
        if self._client is None:
            return Answer.NOBODY
        now = self._clock()
        with self._lock:
            page = self._pages.get(queue)
            if page is not None and page.covers(offset):
                if offset not in page.open:
                    return Answer.CLOSED
                if page.asked_at >= (now - FRESH_SECONDS if since is None else since):
                    return Answer.OPEN
            self._ask(queue, offset, now)
            is_away = self._away_since is not None and now - self._away_since >= PATIENCE_SECONDS
            return Answer.AWAY if is_away else Answer.AWAITED

    def _ask(self, queue: str, offset: int, now: float) -> None:
        waits = self._failed_at is not None and now - self._failed_at < RETRY_SECONDS
        if queue not in self._asking and not waits:
            self._asking.add(queue)
            threading.Thread(target=self._fetch, args=(queue, offset), daemon=True, name="openings").start()

    def _fetch(self, queue: str, offset: int) -> None:
        page = None
        asked_at = self._clock()
        try:
            page = self._page(queue, offset, asked_at)
        except (DatarunError, ValueError, KeyError, TypeError) as error:
            log.warning("gateway.cannot_confirm", queue=queue, offset=offset, error=str(error))
        finally:
            with self._lock:
                self._asking.discard(queue)
                if page is not None:
                    self._pages[queue] = page
                    self._failed_at = self._away_since = None
                else:
                    self._failed_at = self._clock()
                    self._away_since = asked_at if self._away_since is None else self._away_since

    def _page(self, queue: str, offset: int, asked_at: float) -> Page:
        assert self._client is not None  # noqa: S101 - who has none does not ask
        path, parameters = f"/v1/queues/{queue}/open", {"from": offset, "limit": PAGE_OFFSETS}
        told = self._client.request("GET", path, params=parameters, timeout=ASK_SECONDS).json()
        found = frozenset(int(number) for number in told["open"])
        page = Page(int(told["from"]), int(told["until"]), int(told["end"]), found, asked_at)
        if not page.covers(offset):
            raise DatarunError(f"its log ends at {page.end}, before a request that was handed out here")
        return page
