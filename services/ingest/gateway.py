"""What every handler works with, made once; accepting an event is the same few lines for all commands."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import structlog
from aiohttp import web
from psycopg2.extensions import cursor as Cursor

from datarun.blobs import StreamedBlobs
from datarun.crashes import crash_point
from datarun.envelope import Context, encode, now
from datarun.events import Event
from datarun.intake import outbox
from datarun.intake.outbox import Entry, Queued
from datarun.log import EventLog, Position
from datarun.log.brokers import Brokers
from datarun.topics import Catalogue
from services.ingest.arrays import Arrays
from services.ingest.auth import Account, Doorkeeper
from services.ingest.database import Database
from services.ingest.gathering import Gathering
from services.ingest.known_indices import KnownIndices
from services.ingest.log_end import LogEnd
from services.ingest.projected import Projected
from services.ingest.refusals import detail
from services.ingest.relay import Relay
from services.ingest.scoring import Scoring

T = TypeVar("T")
log = structlog.get_logger(__name__)

VISIBLE_SECONDS = 1.0
"""How long an answer waits for the log and the read model, so that a client reads what it wrote."""
PENDING = "pending"
POSITION = "Datarun-Position"
MIN_POSITION = "Datarun-Min-Position"
SOURCE = f"datarun/gateway/{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of one gateway process."""

    catalogue: Catalogue
    brokers: Brokers
    event_log: EventLog
    database: Database
    blobs: StreamedBlobs
    max_blob_bytes: int
    arrays: Arrays
    known_indices: KnownIndices
    relay: Relay
    projected: Projected
    log_end: LogEnd
    gathering: Gathering
    doorkeeper: Doorkeeper
    threads: ThreadPoolExecutor
    storing: ThreadPoolExecutor
    scoring: Scoring
    shows_test_scores: bool
    """Whether participants see their scores on the hidden labels."""
    background: set[asyncio.Task[None]]

    async def compute(self, work: Callable[[], T]) -> T:
        """Run what would hold up the event loop; at most a few at a time, so memory is bounded too."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    def entry(self, event: Event, *, at: datetime | None = None, waiting_for: int | None = None) -> Entry:
        """Return what the outbox owes for an event, which says when its claim was accepted if it has one."""
        record = encode(event, catalogue=self.catalogue, context=Context(SOURCE, at or now()))
        return Entry(record, self.relay.owner, waiting_for)

    async def accept(self, work: Callable[[Cursor], T], queued: Callable[[T], list[Queued]]) -> tuple[T, str]:
        """Commit a claim with its events and send them; returns the claim and the Datarun-Position to answer.

        `queued` gives the rows that a claim wrote, none if it found all of it recorded before. The position is that of
        the last event, `pending` if the log or a split keeps it waiting.
        """
        claim = await self.database.run(work, is_recorded=lambda cursor, made: hold(cursor, queued(made)))
        return claim, await self.announce(queued(claim))

    async def announce(self, rows: Sequence[Queued]) -> str:
        """Send what a claim committed; returns the Datarun-Position to answer."""
        crash_point("gateway.after_commit")
        sent = self.send(rows)
        return await self._visible(sent[-1]) if sent else PENDING

    def send(self, rows: Sequence[Queued]) -> list[asyncio.Future[Position] | None]:
        """Send what was committed together, nothing if one of it waits for a split."""
        if any(row.waits for row in rows):
            # What was committed beside it is sent by the same look.
            self.relay.expect_split()
            return []
        return [self.relay.send(row) for row in rows]

    async def _visible(self, sent: asyncio.Future[Position] | None) -> str:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + VISIBLE_SECONDS
        if sent is None or (self.relay.is_stalled and not sent.done()):
            return PENDING
        try:
            async with asyncio.timeout_at(deadline):
                position = await asyncio.shield(sent)
        except TimeoutError:
            return PENDING
        await self.projected.wait(position, seconds=deadline - loop.time())
        return f"{position.topic}:{position.partition}:{position.offset}"

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside the requests; a failure is logged, and the service waits for it when it stops."""
        task = asyncio.get_running_loop().create_task(work)
        self.background.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("background.failed", reason=str(error))

    async def reach(self, request: web.Request) -> None:
        """Wait until the read model has what a reader says it has seen already; raises Refusal."""
        asked = request.headers.get(MIN_POSITION, PENDING)
        if asked == PENDING:
            return
        if not await self.projected.wait(_parse(asked), seconds=VISIBLE_SECONDS):
            raise detail(503, f"The read model has not reached {asked} yet.", Retry_After="1")


def hold(cursor: Cursor, rows: list[Queued]) -> bool:
    """Tell whether the rows of a transaction were committed."""
    # Of one transaction all are there or none.
    return not rows or outbox.holds(cursor, rows[0])


GATEWAY = web.AppKey("gateway", Gateway)
ACCOUNT = web.RequestKey("account", Account)


def _parse(text: str) -> Position:
    topic, partition, offset = ([*text.rsplit(":", 2), "", ""])[:3]
    numbers = (partition, offset)
    if not topic or not all(number.isascii() and number.isdigit() and len(number) < 19 for number in numbers):  # noqa: PLR2004
        raise detail(400, f"{MIN_POSITION} is not topic:partition:offset.")
    return Position(topic, int(partition), int(offset))
