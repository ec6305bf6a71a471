"""The office of the one gateway that sends for all webhooks: held by a lease, taken over when its holder is gone.

Others look every second; a webhook that was changed begins anew with what is stored of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiohttp import web
from psycopg2.extensions import cursor as Cursor

from datarun.errors import DatabaseUnavailable, LogUnavailable
from datarun.intake import offices, repeats, webhooks
from datarun.intake.deliveries import OFFICE, Turn
from datarun.intake.webhooks import Webhook
from datarun.log import EventLog
from datarun.settings import Settings
from datarun.topics import FOLD_EVENTS
from services.ingest.database import Database
from services.ingest.gateway import GATEWAY, Gateway
from services.ingest.metrics import METRICS
from services.ingest.v1.places import Place
from services.ingest.v1.tail import Tail
from services.ingest.v1.webhooks.receivers import Receivers
from services.ingest.v1.webhooks.recent import Recent
from services.ingest.v1.webhooks.sender import Means, Sender

LOOK_SECONDS = 1.0
MARGIN_SECONDS = 2.0
"""A holder stops sending so long before its lease is over."""
STOP_SECONDS = 2.0
SQL_THREADS = 2

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Running:
    sender: Sender
    task: asyncio.Task[None]


class Office:
    """What one gateway does of it; every method belongs to the event loop."""

    def __init__(self, gateway: Gateway, tail: Tail, make_means: Callable[[Recent], Means], database: Database) -> None:
        self._gateway = gateway
        self._tail = tail
        self._make_means = make_means
        self._database = database
        self._owner = gateway.relay.owner
        self._means: Means | None = None
        self._following: asyncio.Task[None] | None = None
        self._running: dict[int, _Running] = {}
        self._held_until = 0.0
        self._held = asyncio.Event()
        self._kicked = asyncio.Event()

    def kick(self) -> None:
        """Look now: a webhook was changed."""
        self._kicked.set()

    async def may_send(self) -> None:
        """Return once no other gateway can hold the office."""
        while asyncio.get_running_loop().time() >= self._held_until:
            self._held.clear()
            await self._held.wait()

    async def run(self) -> None:
        """Hold the office whenever it is free and there is something to do, for ever."""
        away = False
        while True:
            try:
                await self._look()
                away = False
            except (DatabaseUnavailable, LogUnavailable) as error:
                if not away:
                    log.warning("webhooks.not_sent", reason=str(error))
                away = True
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._kicked.wait()
            except TimeoutError:
                continue
            self._kicked.clear()

    async def leave(self) -> None:
        """Stop sending, once what is being posted is taken or a moment is over, and leave the office to another."""
        posting = [one for one in self._running.values() if one.sender.is_posting]
        for one in posting:
            one.sender.is_last = True
        if posting:
            await asyncio.wait([one.task for one in posting], timeout=STOP_SECONDS)
        await self._stop(list(self._running))
        await self._close()
        try:
            await self._database.run(lambda cursor: offices.leave(cursor, OFFICE, self._owner), seconds=1.0)
        except DatabaseUnavailable as error:
            log.warning("webhooks.office_not_left", reason=str(error))

    async def _look(self) -> None:
        began = asyncio.get_running_loop().time()
        found = await self._database.run(self._find)
        has_failed = self._following is not None and self._following.done()
        if not found or has_failed:
            self._held_until = 0.0
            await self._stop(list(self._running))
            await self._close()
        if not found:
            return
        self._held_until = began + offices.LEASE_SECONDS - MARGIN_SECONDS
        self._held.set()
        means = self._means or await self._open()
        await self._stop([key for key, one in self._running.items() if not _goes_on(one, found.get(key))])
        for key, (webhook, role) in found.items():
            known = self._running.get(key)
            if known is not None:
                known.sender.webhook, known.sender.role = webhook, role
                continue
            sender = Sender(webhook, role, Turn(key, webhook.generation, self._owner), means)
            self._running[key] = _Running(sender, asyncio.get_running_loop().create_task(sender.run()))

    def _find(self, cursor: Cursor) -> dict[int, tuple[Webhook, str]]:
        """Return what to send for, nothing while another gateway does it."""
        if not webhooks.any_active(cursor):
            offices.leave(cursor, OFFICE, self._owner)
            return {}
        if not offices.hold(cursor, OFFICE, self._owner):
            return {}
        active = webhooks.active(cursor)
        for webhook, role in active:
            if role is None:
                webhooks.disable(cursor, webhook.webhook_id, "Its account is gone.")
        return {webhook.webhook_id: (webhook, role) for webhook, role in active if role is not None}

    async def _open(self) -> Means:
        ends = await self._gateway.log_end.of([self._gateway.catalogue.full_name(FOLD_EVENTS)])
        recent = Recent(self._tail, self._owners, Place.behind(ends))
        self._following = asyncio.get_running_loop().create_task(recent.follow())
        self._means = self._make_means(recent)
        log.info("webhooks.office_taken")
        return self._means

    async def _owners(self, ids: Sequence[int]) -> Mapping[int, str]:
        return await self._database.run(lambda cursor: repeats.owners(cursor, ids))

    async def _close(self) -> None:
        following, self._following, self._means = self._following, None, None
        if following is not None:
            following.cancel()
            [ended] = await asyncio.gather(following, return_exceptions=True)
            log.info("webhooks.office_left", reason=repr(ended) if isinstance(ended, Exception) else "")

    async def _stop(self, keys: list[int]) -> None:
        ended = [self._running.pop(key) for key in keys]
        for one in ended:
            one.task.cancel()
        for found in await asyncio.gather(*(one.task for one in ended), return_exceptions=True):
            if isinstance(found, Exception):
                log.error("webhook.sender_failed", reason=repr(found))


def _goes_on(running: _Running, found: tuple[Webhook, str] | None) -> bool:
    return found is not None and not running.task.done() and running.sender.webhook.generation == found[0].generation


@dataclass(frozen=True, slots=True)
class Delivering:
    """What the operations on webhooks work with."""

    settings: Settings
    receivers: Receivers
    office: Office


DELIVERING = web.AppKey("delivering", Delivering)


def delivering(settings: Settings, event_log: EventLog) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return what sends webhooks for as long as an application runs."""

    async def run(app: web.Application) -> AsyncIterator[None]:
        database = Database(settings.postgres, threads=SQL_THREADS)
        tail = Tail(event_log, settings.catalogue)
        receivers = Receivers(settings.webhooks)

        def make_means(recent: Recent) -> Means:
            return Means(
                settings=settings.webhooks,
                database=database,
                receivers=receivers,
                recent=recent,
                tries=app[METRICS].webhook_tries,
                may_send=office.may_send,
            )

        office = Office(app[GATEWAY], tail, make_means, database)
        app[DELIVERING] = Delivering(settings, receivers, office)
        looking = asyncio.get_running_loop().create_task(office.run())
        looking.add_done_callback(_told)
        yield
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await office.leave()
        await receivers.close()
        tail.close()
        database.close()

    return run


def _told(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("webhooks.office_failed", reason=repr(error))
