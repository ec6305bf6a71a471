"""Sends what the outbox owes to the log: at once after a commit, again after a failure, and for gateways that are gone.

Of one topic and key only one record is under way at a time, so that the log has them in the order of the outbox.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import structlog
from psycopg2.extensions import cursor as Cursor

from datarun.crashes import crash_point
from datarun.errors import DatabaseUnavailable, LogUnavailable
from datarun.intake import answered, fetches, outbox
from datarun.intake.outbox import Queued
from datarun.log import EventLog, Position
from datarun.topics import Catalogue, Kind
from services.ingest.database import Database

MOST_IN_MEMORY = 10_000
SCAN_SECONDS = 1.0
HURRIED_SCAN_SECONDS = 0.02
HURRY_SECONDS = 2.0
"""How long rows are looked for often after one had to wait for an older one, which another gateway may be sending."""
RETRY_SECONDS = 1.0
MARK_SECONDS = 0.025
"""Acknowledgements are gathered for this long before one statement records them."""
LAST_MARK_SECONDS = 1.0
PRUNE_SECONDS = 60.0
STALLED_SECONDS = 1.0
BATCH = 1000

log = structlog.get_logger(__name__)

Lane = tuple[str, bytes]


@dataclass(slots=True)
class _Sending:
    """A row that is in memory: not in the log yet, or not yet recorded as such."""

    row: Queued
    sent: asyncio.Future[Position] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def lane(self) -> Lane:
        return (self.row.record.topic, self.row.record.key)


class Relay:
    """The sender of one gateway's rows; every method belongs to the event loop."""

    def __init__(self, event_log: EventLog, database: Database, *, catalogue: Catalogue, owner: int) -> None:
        self.owner = owner
        self._log = event_log
        self._database = database
        self._catalogue = catalogue
        self._rows: dict[int, _Sending] = {}
        self._lanes: dict[Lane, deque[_Sending]] = {}
        self._acknowledged: list[tuple[int, int, int]] = []
        # What was marked while a scan ran, or before its own request came to send it, is not sent again.
        self._marked: OrderedDict[int, None] = OrderedDict()
        self._to_mark = asyncio.Event()
        self._kicked = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._unanswered_since: float | None = None
        self._hurry_until = 0.0
        # Until the first scan nobody knows.
        self._expects_split = True

    def start(self) -> None:
        """Start the loops that record acknowledgements and look for rows left behind."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work()) for work in (self._mark_for_ever, self._scan_for_ever, self._prune)]

    async def stop(self) -> None:
        """Stop looking, and record what is acknowledged; what is not will be sent by the next gateway."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST_MARK_SECONDS):
                await self._mark()
        except TimeoutError:
            log.warning("outbox.not_marked", reason="the service stops")

    def expect_split(self) -> None:
        """Look out for a split: a row that was just committed waits for it."""
        self._expects_split = True
        self._kicked.set()

    def on_projected(self) -> None:
        """Look for rows now if one waits for what may have been projected."""
        if self._expects_split:
            self._kicked.set()

    @property
    def is_stalled(self) -> bool:
        """Tell whether the log takes nothing at present, so that waiting for it is vain."""
        since = self._unanswered_since
        return since is not None and asyncio.get_running_loop().time() - since > STALLED_SECONDS

    def send(self, row: Queued) -> asyncio.Future[Position] | None:
        """Append a row that was just committed; None when it must wait for an older one or for room."""
        known = self._rows.get(row.id)
        if known is not None or row.id in self._marked:
            return known.sent if known else None
        overtakes = row.after is not None and row.after not in self._rows
        if overtakes or len(self._rows) >= MOST_IN_MEMORY:
            self._hurry_until = asyncio.get_running_loop().time() + HURRY_SECONDS
            self._kicked.set()
            return None
        sending = _Sending(row)
        self._rows[row.id] = sending
        lane = self._lanes.setdefault(sending.lane, deque())
        lane.append(sending)
        if len(lane) == 1:
            self._append(sending)
        return sending.sent

    def _append(self, sending: _Sending) -> None:
        loop = asyncio.get_running_loop()
        if self._unanswered_since is None:
            self._unanswered_since = loop.time()
        future = self._log.append(sending.row.record)
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._settle, sending, done))

    def _settle(self, sending: _Sending, done: Future[Position]) -> None:
        error = done.exception()
        if isinstance(error, LogUnavailable):
            log.warning("outbox.not_sent", outbox_id=sending.row.id, reason=str(error))
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._append, sending)
            return
        position = done.result()
        self._acknowledged.append((sending.row.id, position.partition, position.offset))
        self._to_mark.set()
        if not sending.sent.done():
            sending.sent.set_result(position)
        lane = self._lanes[sending.lane]
        lane.popleft()
        if lane:
            self._append(lane[0])
        else:
            del self._lanes[sending.lane]
        self._unanswered_since = asyncio.get_running_loop().time() if self._lanes else None

    async def _mark_for_ever(self) -> None:
        while True:
            await self._to_mark.wait()
            await asyncio.sleep(MARK_SECONDS)
            self._to_mark.clear()
            if not await self._mark():
                await asyncio.sleep(RETRY_SECONDS)
                self._to_mark.set()

    async def _mark(self) -> bool:
        acknowledged, self._acknowledged = self._acknowledged, []
        try:
            if acknowledged:
                crash_point("gateway.before_mark")
                await self._database.run(lambda cursor: outbox.mark_sent(cursor, acknowledged))
        except DatabaseUnavailable as error:
            log.warning("outbox.not_marked", rows=len(acknowledged), reason=str(error))
            self._acknowledged = acknowledged + self._acknowledged
            return False
        for id_, _, _ in acknowledged:
            del self._rows[id_]
            self._marked[id_] = None
        while len(self._marked) > MOST_IN_MEMORY:
            self._marked.popitem(last=False)
        return True

    async def _scan_for_ever(self) -> None:
        away = False
        while True:
            try:
                await self._scan()
                away = False
            except DatabaseUnavailable as error:
                if not away:
                    log.warning("outbox.not_read", reason=str(error))
                away = True
            await self._pause()

    async def _pause(self) -> None:
        try:
            hurries = asyncio.get_running_loop().time() < self._hurry_until
            async with asyncio.timeout(HURRIED_SCAN_SECONDS if hurries else SCAN_SECONDS):
                await self._kicked.wait()
        except TimeoutError:
            return
        self._kicked.clear()

    async def _scan(self) -> None:
        room = min(BATCH, MOST_IN_MEMORY - len(self._rows))
        if room <= 0:
            return
        in_memory = list(self._rows)
        self._expects_split = False
        found, waiting = await self._database.run(lambda cursor: self._find(cursor, in_memory, room))
        self._expects_split |= waiting
        for row in found:
            self.send(self._as_sent(row))

    def _find(self, cursor: Cursor, in_memory: list[int], room: int) -> tuple[list[Queued], bool]:
        adopted = outbox.adopt(cursor, self.owner, limit=BATCH)
        released = outbox.release(cursor, self.owner, limit=BATCH)
        if adopted or released:
            log.info("outbox.found", adopted=adopted, released=released)
        found = outbox.unsent(cursor, self.owner, except_ids=in_memory, limit=room)
        return found, outbox.any_waiting(cursor, self.owner)

    def _as_sent(self, row: Queued) -> Queued:
        record = replace(row.record, single=self._catalogue.topic(row.record.topic).kind is Kind.QUEUE)
        if self._catalogue.signatures is not None:
            # A request that was given its split meanwhile is another than the one that was signed.
            record = self._catalogue.signatures.signed(record)
        return row._replace(record=record)

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_SECONDS)
            try:
                await self._database.run(_prune)
            except DatabaseUnavailable as error:
                log.warning("outbox.not_pruned", reason=str(error))


def _prune(cursor: Cursor) -> None:
    outbox.prune(cursor, limit=BATCH * 10)
    fetches.prune(cursor)
    answered.prune(cursor)
