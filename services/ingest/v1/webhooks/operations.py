"""Operations on webhooks. Accounts have their own; what a participant's is told is their own work alone."""

from __future__ import annotations

from typing import Any, TypeVar

from aiohttp import web
from psycopg2.extensions import cursor as Cursor
from yarl import URL

from datarun.errors import LogUnavailable
from datarun.intake import webhooks
from datarun.intake.webhooks import Change, New, Wanted
from datarun.intake.webhooks import Webhook as Stored
from datarun.topics import FOLD_EVENTS
from services.ingest.refusals import Refusal, detail, not_found
from services.ingest.v1.idempotency import Key, answer_once
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import Call, Operation, Says, answer
from services.ingest.v1.pages import ByNumber, Page, page_answer
from services.ingest.v1.places import Place
from services.ingest.v1.webhooks import signing
from services.ingest.v1.webhooks.addresses import is_allowed, is_literal
from services.ingest.v1.webhooks.models import (
    ChangedWebhook,
    NewWebhook,
    Start,
    Webhook,
    WebhookWithSecret,
    shown,
    shown_with,
)
from services.ingest.v1.webhooks.office import DELIVERING

MOST_OF_ACCOUNT = 20
TAG = "webhooks"

T = TypeVar("T")
WebhookPage = Page[Webhook]


async def create_webhook(call: Call[Nothing, NewWebhook]) -> web.StreamResponse:
    """Create a webhook; its secret is told in this answer alone."""
    body, database = call.body, call.gateway.database
    key = Key(call, body.model_dump_json())
    _check(call, body.url)
    offsets = await _place(call, body.start)
    secret = signing.make_secret()
    new = New(
        username=call.account.username,
        url=body.url,
        description=body.description,
        wanted=Wanted(list(dict.fromkeys(body.events)), body.dataset_id, body.submission_id, body.fold_id),
        secret=secret,
        offsets=offsets,
    )

    def create(cursor: Cursor) -> Stored:
        if webhooks.count_of(cursor, new.username) >= MOST_OF_ACCOUNT:
            raise detail(409, f"An account has {MOST_OF_ACCOUNT} webhooks at the most.")
        return webhooks.create(cursor, new)

    async def accept() -> web.StreamResponse:
        # What is kept of the answer has no secret in it.
        once = key.around(create, lambda made: (201, shown_with(made, None)))
        made = await database.run(once, is_recorded=lambda cursor, made: _is_there(cursor, made.webhook_id))
        call.request.app[DELIVERING].office.kick()
        where = {"Location": f"/v1/webhooks/{made.webhook_id}"}
        return answer(shown_with(made, signing.shown(secret)), status=201, headers=where)

    return await answer_once(call, key, accept)


async def list_webhooks(call: Call[ByNumber, None]) -> web.StreamResponse:
    """Return a page of webhooks: one's own, all of them to an admin."""
    query, only_of = call.query, owner_of(call)
    found = await call.gateway.database.run(
        lambda cursor: webhooks.ls(cursor, only_of=only_of, after=query.after, limit=query.limit)
    )
    after = found[-1].webhook_id if len(found) == query.limit else None
    return page_answer(call.request, WebhookPage, [shown(one) for one in found], after=after)


async def get_webhook(call: Call[Nothing, None]) -> web.StreamResponse:
    """Return a webhook: whether it works, and why not."""
    return answer(shown(await find(call)))


async def change_webhook(call: Call[Nothing, ChangedWebhook]) -> web.StreamResponse:
    """Change a webhook, disable it, or let it go on."""
    body, only_of = call.body, owner_of(call)
    if body.url is not None:
        _check(call, body.url)
    change = Change(
        url=body.url,
        description=body.description,
        kinds=None if body.events is None else list(dict.fromkeys(body.events)),
        offsets=None if body.start is None else await _place(call, body.start),
        is_enabled=body.enabled,
        reason=f"Disabled by {call.account.username}.",
    )
    changed = await call.gateway.database.run(
        lambda cursor: webhooks.change(cursor, call.path["webhook_id"], change, only_of=only_of)
    )
    call.request.app[DELIVERING].office.kick()
    return answer(shown(_there(changed)))


async def rotate_secret(call: Call[Nothing, None]) -> web.StreamResponse:
    """Give a webhook a new secret; for a day messages are signed with the old one too."""
    webhook_id, only_of, secret = call.path["webhook_id"], owner_of(call), signing.make_secret()
    key = Key(call, "")

    def rotate(cursor: Cursor) -> Stored:
        return _there(webhooks.rotate(cursor, webhook_id, secret, only_of=only_of))

    def is_recorded(cursor: Cursor, _: Stored) -> bool:
        found = webhooks.find(cursor, webhook_id, only_of=None)
        return found is not None and found.secrets[0] == secret

    async def accept() -> web.StreamResponse:
        once = key.around(rotate, lambda made: (200, shown_with(made, None)))
        rotated = await call.gateway.database.run(once, is_recorded=is_recorded)
        call.request.app[DELIVERING].office.kick()
        return answer(shown_with(rotated, signing.shown(secret)))

    return await answer_once(call, key, accept)


async def delete_webhook(call: Call[Nothing, None]) -> web.StreamResponse:
    """Forget a webhook and what was tried of it."""
    only_of = owner_of(call)
    if not await call.gateway.database.run(
        lambda cursor: webhooks.delete(cursor, call.path["webhook_id"], only_of=only_of)
    ):
        raise not_found()
    call.request.app[DELIVERING].office.kick()
    return web.Response(status=204)


async def find(call: Call[Any, Any]) -> Stored:
    """Return the webhook of a path, if who asks may see it; raises Refusal."""
    only_of = owner_of(call)
    return _there(
        await call.gateway.database.run(lambda cursor: webhooks.find(cursor, call.path["webhook_id"], only_of=only_of))
    )


def owner_of(call: Call[Any, Any]) -> str | None:
    """Return whose webhooks alone may be seen: one's own; None for admins, who see all."""
    return None if call.account.role == "admin" else call.account.username


def _there(found: T | None) -> T:
    if found is None:
        raise not_found()
    return found


def _is_there(cursor: Cursor, webhook_id: int) -> bool:
    return webhooks.find(cursor, webhook_id, only_of=None) is not None


def _check(call: Call[Any, Any], url: str) -> None:
    """Refuse an address that nothing will be sent to; names are judged when they are looked up."""
    host = URL(url).host or ""
    if is_literal(host) and not is_allowed(host, call.request.app[DELIVERING].settings.webhooks.networks):
        wrong = {"pointer": "/url", "code": "address", "detail": "Webhooks may not be sent to this address."}
        raise Refusal(400, {"detail": wrong["detail"], "errors": [wrong]})


async def _place(call: Call[Any, Any], start: Start) -> list[int]:
    if start == "beginning":
        return Place.beginning().offsets
    gateway = call.gateway
    try:
        return Place.behind(await gateway.log_end.of([gateway.catalogue.full_name(FOLD_EVENTS)])).offsets
    except LogUnavailable as error:
        raise detail(503, "The log does not answer.", Retry_After="5") from error


_PATH = {"path": {"webhook_id": 1}}
OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/webhooks",
        handle=create_webhook,
        summary="Have events posted to a server of yours",
        tag=TAG,
        body=NewWebhook,
        answers={201: Says("It is created.", WebhookWithSecret, headers={"Location": "The webhook."})},
        problems=(409, 422),
        takes_key=True,
        example={"body": {"url": "https://receiver.invalid/datarun", "events": ["FoldTested", "FoldFailed"]}},
    ),
    Operation(
        method="GET",
        path="/v1/webhooks",
        handle=list_webhooks,
        summary="List webhooks",
        tag=TAG,
        query=ByNumber,
        answers={200: Says("A page of webhooks by number.", WebhookPage)},
        example={"query": {"limit": 10}},
    ),
    Operation(
        method="GET",
        path="/v1/webhooks/{webhook_id}",
        handle=get_webhook,
        summary="Look at a webhook",
        tag=TAG,
        answers={200: Says("The webhook.", Webhook)},
        example=_PATH,
    ),
    Operation(
        method="PATCH",
        path="/v1/webhooks/{webhook_id}",
        handle=change_webhook,
        summary="Change, disable or enable a webhook",
        tag=TAG,
        body=ChangedWebhook,
        answers={200: Says("The webhook as it is now.", Webhook)},
        example={**_PATH, "body": {"enabled": True}},
    ),
    Operation(
        method="POST",
        path="/v1/webhooks/{webhook_id}/rotate",
        handle=rotate_secret,
        summary="Give a webhook a new secret",
        tag=TAG,
        answers={200: Says("The webhook with its new secret.", WebhookWithSecret)},
        problems=(422,),
        takes_key=True,
        example=_PATH,
    ),
    Operation(
        method="DELETE",
        path="/v1/webhooks/{webhook_id}",
        handle=delete_webhook,
        summary="Delete a webhook",
        tag=TAG,
        answers={204: Says("It is gone.", media_types=())},
        example=_PATH,
    ),
)
