"""Sends one webhook its messages, one after the other, each until it is taken or the webhook is disabled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from prometheus_client import Counter
from psycopg2.extensions import cursor as Cursor

from datarun.crashes import crash_point
from datarun.errors import DatabaseUnavailable
from datarun.intake import deliveries, webhooks
from datarun.intake.deliveries import Cause, Standing, Try, Turn
from datarun.intake.webhooks import Webhook
from datarun.settings import WebhookSettings
from services.ingest.database import Database
from services.ingest.v1.places import Place
from services.ingest.v1.webhooks.notices import Notice, wants
from services.ingest.v1.webhooks.receivers import GONE, Message, Outcome, Receivers
from services.ingest.v1.webhooks.recent import Reading, Recent
from services.ingest.v1.webhooks.retrying import pause

SAVE_SECONDS = 30.0
"""A place behind what is not wanted is recorded this often; read again it changes nothing."""
RETRY_SECONDS = 1.0

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What all senders of a gateway work with."""

    settings: WebhookSettings
    database: Database
    receivers: Receivers
    recent: Recent
    tries: Counter
    may_send: Callable[[], Awaitable[None]]
    """Waits while another gateway could be sending."""


class Sender:
    """The sender of one webhook; what it knows of retries is in the database too."""

    def __init__(self, webhook: Webhook, role: str, turn: Turn, means: Means) -> None:
        self.webhook = webhook
        self.role = role
        self._turn = turn
        self._means = means
        self._place = Place(list(webhook.offsets))
        self._tried = webhook.attempts
        self._try_at = asyncio.get_running_loop().time() + webhook.pause_seconds
        self.is_posting = False
        self.is_last = False
        """Whether what is being posted is the last."""

    async def run(self) -> None:
        """Deliver for as long as it is this sender's to do."""
        loop = asyncio.get_running_loop()
        reading = Reading(Place(list(self._place.offsets)))
        saved, saved_at = list(self._place.offsets), loop.time()
        while True:
            for told in await self._means.recent.read(reading):
                if wants(self.webhook, self.role, told) and not await self._deliver(told):
                    return
                self._place.offsets[told.partition] = told.offset + 1
            self._place = Place(list(reading.place.offsets))
            if self._place.offsets != saved and loop.time() > saved_at + SAVE_SECONDS:
                saved, saved_at = list(self._place.offsets), loop.time()
                if not await self._recorded(partial(deliveries.move, turn=self._turn, offsets=saved)):
                    return

    async def _deliver(self, told: Notice) -> bool:
        """Post until it is taken; False once the webhook is disabled, or not this sender's any more."""
        loop = asyncio.get_running_loop()
        behind = list(self._place.offsets)
        behind[told.partition] = told.offset + 1
        while True:
            await asyncio.sleep(max(0.0, self._try_at - loop.time()))
            await self._means.may_send()
            self.is_posting = True
            standing = await self._try(told.message, behind)
            self.is_posting = False
            if standing is None or standing.is_disabled or self.is_last:
                return False
            if standing.is_delivered:
                return True
            self._try_at = loop.time() + standing.pause_seconds

    async def _try(self, message: Message, behind: list[int]) -> Standing | None:
        """Post once and record what came of it; None when it is not this sender's any more."""
        crash_point("webhook.before_post")
        outcome = await self._means.receivers.post(self.webhook.url, list(self.webhook.secrets), message)
        crash_point("webhook.after_post")
        self._means.tries.labels("delivered" if outcome.is_delivered else "failed").inc()
        self._tried += 1
        tried = as_try(message, outcome, cause="event", attempt=self._tried)
        if not outcome.is_delivered:
            return await self._failed(tried, outcome)
        self._tried = 0
        return await self._recorded(lambda cursor: deliveries.deliver(cursor, self._turn, behind, tried))

    async def _failed(self, tried: Try, outcome: Outcome) -> Standing | None:
        settings, webhook_id = self._means.settings, self._turn.webhook_id
        chance = random.random()  # noqa: S311 - spreads tries
        seconds = pause(settings, attempt=self._tried, chance=chance, asked=outcome.retry_after)
        is_gone = outcome.status == GONE
        reason = "It answered 410: it is gone." if is_gone else f"It took nothing for too long. {tried.error}"

        def fail(cursor: Cursor) -> Standing | None:
            standing = deliveries.fail(
                cursor,
                self._turn,
                tried,
                pause_seconds=seconds,
                give_up_seconds=0.0 if is_gone else settings.give_up_seconds,
            )
            if standing is not None and standing.is_disabled:
                webhooks.disable(cursor, webhook_id, reason)
            return standing

        standing = await self._recorded(fail)
        if standing is not None:
            log.info("webhook.not_delivered", webhook_id=webhook_id, reason=tried.error, disabled=standing.is_disabled)
        return standing

    async def _recorded(self, work: Callable[[Cursor], T]) -> T:
        """Record what is known until the database takes it; nothing is posted meanwhile."""
        while True:
            try:
                return await self._means.database.run(work)
            except DatabaseUnavailable as error:
                log.warning("webhook.not_recorded", webhook_id=self._turn.webhook_id, reason=str(error))
            await asyncio.sleep(RETRY_SECONDS)


def as_try(message: Message, outcome: Outcome, *, cause: Cause, attempt: int) -> Try:
    """Return what is kept of a try."""
    return Try(
        message_id=message.id,
        kind=message.kind,
        body=message.body.decode(),
        cause=cause,
        attempt=attempt,
        status=outcome.status,
        error=outcome.error,
        seconds=outcome.seconds,
    )
