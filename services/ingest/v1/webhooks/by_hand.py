"""Tries that somebody asks for: a ping, and a message once more; neither moves the webhook's place."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from datarun.intake import deliveries
from datarun.intake.deliveries import Cause
from datarun.intake.webhooks import Webhook as Stored
from services.ingest.metrics import METRICS
from services.ingest.refusals import detail, not_found
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import Call, Operation, Says, answer
from services.ingest.v1.webhooks.models import Deliveries, Delivery, shown_delivery
from services.ingest.v1.webhooks.notices import PING, message
from services.ingest.v1.webhooks.office import DELIVERING
from services.ingest.v1.webhooks.operations import TAG, find
from services.ingest.v1.webhooks.receivers import Message
from services.ingest.v1.webhooks.sender import as_try

AT_ONCE = 16
_TURNS = asyncio.Semaphore(AT_ONCE)


async def ping_webhook(call: Call[Nothing, None]) -> web.StreamResponse:
    """Send a webhook a message of the kind `ping`, now and once, and tell what came of it."""
    webhook = await find(call)
    told = message(f"ping-{uuid.uuid4()}", PING, {"webhook_id": webhook.webhook_id}, at=datetime.now(UTC).isoformat())
    return await _send(call, webhook, told, cause="ping", attempt=1)


async def redeliver(call: Call[Nothing, None]) -> web.StreamResponse:
    """Send what was sent in one of the last tries once more, with the same id, and tell what came of it."""
    webhook, delivery_id = await find(call), call.path["delivery_id"]
    known = await call.gateway.database.run(lambda cursor: deliveries.find(cursor, webhook.webhook_id, delivery_id))
    if known is None:
        raise not_found()
    tried = known.tried
    told = Message(id=tried.message_id, kind=tried.kind, body=tried.body.encode())
    return await _send(call, webhook, told, cause="redelivery", attempt=tried.attempt + 1)


async def list_deliveries(call: Call[Nothing, None]) -> web.StreamResponse:
    """Return what was tried of a webhook lately."""
    webhook = await find(call)
    found = await call.gateway.database.run(lambda cursor: deliveries.ls(cursor, webhook.webhook_id))
    return answer(Deliveries(items=[shown_delivery(one) for one in found]))


async def _send(call: Call[Any, Any], webhook: Stored, told: Message, *, cause: Cause, attempt: int) -> web.Response:
    if _TURNS.locked():
        raise detail(503, "Too many are being tried at once.", Retry_After="5")
    async with _TURNS:
        outcome = await call.request.app[DELIVERING].receivers.post(webhook.url, list(webhook.secrets), told)
    call.request.app[METRICS].webhook_tries.labels("delivered" if outcome.is_delivered else "failed").inc()
    tried = as_try(told, outcome, cause=cause, attempt=attempt)
    kept = await call.gateway.database.run(lambda cursor: deliveries.record(cursor, webhook.webhook_id, tried))
    if kept is None:
        raise not_found()
    return answer(shown_delivery(kept))


_PATH = {"webhook_id": 1}
OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/webhooks/{webhook_id}/ping",
        handle=ping_webhook,
        summary="Try a webhook",
        tag=TAG,
        answers={200: Says("What came of it.", Delivery)},
        example={"path": _PATH},
    ),
    Operation(
        method="GET",
        path="/v1/webhooks/{webhook_id}/deliveries",
        handle=list_deliveries,
        summary="List what was tried of a webhook",
        tag=TAG,
        answers={200: Says(f"The last {deliveries.KEPT} tries.", Deliveries)},
        example={"path": _PATH},
    ),
    Operation(
        method="POST",
        path="/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
        handle=redeliver,
        summary="Send a message once more",
        tag=TAG,
        answers={200: Says("What came of it.", Delivery)},
        example={"path": {**_PATH, "delivery_id": 1}},
    ),
)
