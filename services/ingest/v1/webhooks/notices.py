"""What webhooks tell of a record of the log, and to whom. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from datarun.events import FoldCancelled, FoldEvent, FoldFailed, FoldTested
from datarun.intake.webhooks import Webhook
from datarun.log import StoredRecord
from datarun.topics import FOLD_EVENTS, Catalogue
from services.ingest.v1.live import fold_event, summary
from services.ingest.v1.webhooks.receivers import Message

ENDS = (FoldTested.__name__, FoldFailed.__name__, FoldCancelled.__name__)
"""What a webhook is told that asks for nothing in particular."""
KINDS = tuple(
    event.__name__ for event in FOLD_EVENTS.carries if {"raw_data_id", "submission_id"} <= event.model_fields.keys()
)
"""What a webhook can ask for: what says itself whose it is."""
PING = "ping"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is to be told of one record; `owner` is whose submission it is of."""

    partition: int
    offset: int
    message: Message
    fold_id: int
    submission_id: int
    raw_data_id: int
    owner: str | None = None


def notice(record: StoredRecord, catalogue: Catalogue) -> Notice | None:
    """Return what is told of a record, None if it is nothing; nobody owns it yet."""
    event = fold_event(record, catalogue)
    if event is None or type(event).__name__ not in KINDS:
        return None
    told = summary(record, event)
    return Notice(
        partition=record.partition,
        offset=record.offset,
        # The same fact has the same id, however often the log has it.
        message=message(str(event.event_id), type(event).__name__, told | {"links": _links(event)}, at=told["at"]),
        fold_id=event.fold_id,
        submission_id=told["submission_id"],
        raw_data_id=told["raw_data_id"],
    )


def message(message_id: str, kind: str, data: dict[str, Any], *, at: str) -> Message:
    """Return a message; its body depends on nothing else."""
    return Message(id=message_id, kind=kind, body=orjson.dumps({"type": kind, "timestamp": at, "data": data}))


def wants(webhook: Webhook, role: str | None, told: Notice) -> bool:
    """Tell whether a webhook is told this; a participant's of their own work alone."""
    if role is None or (role == "participant" and told.owner != webhook.username):
        return False
    wanted = webhook.wanted
    return (
        told.message.kind in wanted.kinds
        and wanted.raw_data_id in (None, told.raw_data_id)
        and wanted.submission_id in (None, told.submission_id)
        and wanted.fold_id in (None, told.fold_id)
    )


def _links(event: FoldEvent) -> dict[str, str]:
    fold = f"/v1/folds/{event.fold_id}"
    predictions = {"predictions": f"{fold}/predictions/test"} if isinstance(event, FoldTested) else {}
    return {"fold": fold, **predictions}
