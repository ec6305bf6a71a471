"""What clients say of webhooks and are told of them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints
from yarl import URL

from datarun.intake.deliveries import Cause
from datarun.intake.deliveries import Delivery as StoredDelivery
from datarun.intake.webhooks import Webhook as Stored
from services.ingest.v1.values import Asked, DatasetId, DeliveryId, FoldId, SubmissionId, Text, Told, WebhookId
from services.ingest.v1.webhooks.addresses import is_literal
from services.ingest.v1.webhooks.notices import ENDS, KINDS, PING

MOST_URL_CHARACTERS = 2000
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def _parsed(text: str) -> str:
    # Says no word of what was given: it may hold a secret.
    try:
        host = URL(text).host
    except ValueError:
        host = None
    # An address in another than its usual form is read so by some and so by others.
    if not host or (_NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) and not is_literal(host)):
        raise ValueError("not the URL of a server")
    return text


Url = Annotated[
    str,
    StringConstraints(
        max_length=MOST_URL_CHARACTERS, pattern=r'^https?://[A-Za-z0-9._~:\[\]-]{1,260}([/?][!-"$-~]*)?$'
    ),
    AfterValidator(_parsed),
    Field(description="http or https, in ASCII, without user name, password and fragment."),
]
Kind = Literal[KINDS]  # type: ignore[valid-type]
Kinds = Annotated[list[Kind], Field(min_length=1, max_length=len(KINDS), description="Kinds of events.")]
Start = Literal["now", "beginning"]


class NewWebhook(Asked):
    """Where to post what happens to folds, and what of it: all of these conditions together."""

    url: Url
    description: Text = ""
    events: Kinds = Field(default_factory=lambda: list(ENDS))
    dataset_id: DatasetId | None = None
    submission_id: SubmissionId | None = None
    fold_id: FoldId | None = None
    start: Annotated[Start, Field(description="Begin with what comes from now on, or with the log's first event.")] = (
        "now"
    )


class ChangedWebhook(Asked):
    """What is to be otherwise; the next message is tried at once."""

    url: Url | None = None
    description: Text | None = None
    events: Kinds | None = None
    enabled: Annotated[
        bool | None, Field(description="false: nothing is sent; true: it goes on where it stopped, or from `start`.")
    ] = None
    start: Annotated[Start | None, Field(description="Leave out what has come so far, or begin anew.")] = None


class Webhook(Told):
    """A webhook; `failing` while its next message is not taken, `disabled` with the reason."""

    id: WebhookId
    url: str
    description: str
    owner: str
    events: list[str]
    dataset_id: DatasetId | None
    submission_id: SubmissionId | None
    fold_id: FoldId | None
    created_at: datetime
    state: Literal["active", "failing", "disabled"]
    reason: Annotated[str | None, Field(description="Why it is failing or disabled.")]
    failing_since: datetime | None
    attempts: Annotated[int, Field(description="How often the next message was tried.")]
    next_try_at: datetime | None
    delivered_at: Annotated[datetime | None, Field(description="When a message was taken last.")]


class WebhookWithSecret(Webhook):
    """A webhook and its new secret."""

    secret: Annotated[
        str | None, Field(description="Said this once; null when the answer is repeated for an Idempotency-Key.")
    ]


class Delivery(Told):
    """One try to deliver a message."""

    id: DeliveryId
    message_id: Annotated[str, Field(description="The `webhook-id` it was sent with: the same in all tries.")]
    event: Annotated[str, Field(description=f"Its kind, or `{PING}`.")]
    cause: Cause
    attempt: int
    delivered: bool
    status: Annotated[int | None, Field(description="What the receiver answered; null if it did not.")]
    error: str | None
    seconds: float
    tried_at: datetime
    next_try_at: datetime | None


class Deliveries(Told):
    """The last tries, the newest first."""

    items: list[Delivery]


def shown(webhook: Stored) -> Webhook:
    """Show a webhook, without its secret."""
    return Webhook(**_fields(webhook))


def shown_with(webhook: Stored, secret: str | None) -> WebhookWithSecret:
    """Show a webhook with its secret."""
    return WebhookWithSecret(**_fields(webhook), secret=secret)


def _fields(webhook: Stored) -> dict[str, Any]:
    wanted = webhook.wanted
    is_disabled, is_failing = webhook.disabled_at is not None, webhook.failing_since is not None
    return {
        "id": webhook.webhook_id,
        "url": webhook.url,
        "description": webhook.description,
        "owner": webhook.username,
        "events": list(wanted.kinds),
        "dataset_id": wanted.raw_data_id,
        "submission_id": wanted.submission_id,
        "fold_id": wanted.fold_id,
        "created_at": webhook.created_at,
        "state": "disabled" if is_disabled else "failing" if is_failing else "active",
        "reason": webhook.disabled_reason if is_disabled else webhook.last_error,
        "failing_since": webhook.failing_since,
        "attempts": webhook.attempts,
        "next_try_at": webhook.next_try_at,
        "delivered_at": webhook.delivered_at,
    }


def shown_delivery(delivery: StoredDelivery) -> Delivery:
    """Show a try."""
    tried = delivery.tried
    return Delivery(
        id=delivery.delivery_id,
        message_id=tried.message_id,
        event=tried.kind,
        cause=tried.cause,
        attempt=tried.attempt,
        delivered=tried.error is None,
        status=tried.status,
        error=tried.error,
        seconds=round(tried.seconds, 3),
        tried_at=delivery.tried_at,
        next_try_at=delivery.next_try_at,
    )
