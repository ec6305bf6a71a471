"""The life of a fold, read from the log itself within a bound: its events are all in one partition.

Of its requests the newest is read where the read model saw it; of earlier ones the events of their deliveries tell.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from datetime import datetime
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field

from datarun.envelope import check_route, decode, header
from datarun.errors import LogUnavailable, Rejected
from datarun.events import FoldRequested, RunEvent
from datarun.log import EventLog, Position, StoredRecord, TopicPartition
from datarun.log.reading import record_at
from datarun.partitioner import partition_of
from datarun.projection.columns import moment
from datarun.readmodel import waits
from datarun.topics import FOLD_EVENTS, QUEUES, Catalogue
from services.ingest.refusals import detail
from services.ingest.v1.folds import find
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import Call, Operation, Says, answer
from services.ingest.v1.values import FoldId, Told

READ_SECONDS = 4.0
SKEW_MS = 300_000
"""So much earlier than the dataset was accepted, by the database's clock, the log is read from, by the broker's."""
_AT_ONCE = asyncio.Semaphore(2)


class Happening(Told):
    """One record of the log about a fold."""

    at: Annotated[datetime, Field(description="By the broker's clock.")]
    event: str
    attempt: int
    delivery: int | None = None
    position: Annotated[str, Field(description="topic:partition:offset.")]
    event_id: Annotated[str | None, Field(description="The same for the same fact, however often it was appended.")]
    source: str | None
    causation_id: str | None
    data: Annotated[dict[str, Any], Field(description="The event, without its dataset.")]


class History(Told):
    """What happened to a fold, by the broker's clock; incomplete when the log could not be read in time."""

    id: FoldId
    complete: bool
    events: list[Happening]


async def get_history(call: Call[Nothing, None]) -> web.StreamResponse:
    """Return every event of a fold."""
    fold, gateway = await find(call), call.gateway
    key = b"%d" % fold.fold_id
    request = None
    if fold.is_projected and fold.request_offset is not None:
        request = Position(gateway.catalogue.full_name(QUEUES[fold.priority]), 0, fold.request_offset)
    since = await gateway.database.run(lambda cursor: waits.accepted_at(cursor, fold.raw_data_id))
    since_ms = int(since.timestamp() * 1000) - SKEW_MS if since else 0
    try:
        async with _AT_ONCE:
            records, complete = await asyncio.to_thread(
                _read, gateway.event_log, gateway.catalogue, key=key, request=request, since_ms=since_ms
            )
    except LogUnavailable as error:
        raise detail(503, "The log does not answer.", Retry_After="5") from error
    found = [one for record in records if (one := _shown(record, gateway.catalogue)) is not None]
    return answer(History(id=fold.fold_id, complete=complete, events=sorted(found, key=lambda one: one.at)))


def _read(
    log: EventLog, catalogue: Catalogue, *, key: bytes, request: Position | None, since_ms: int
) -> tuple[list[StoredRecord], bool]:
    found = [record_at(log, request, seconds=READ_SECONDS)] if request else []
    topic = catalogue.full_name(FOLD_EVENTS)
    tp = TopicPartition(topic, partition_of(key, FOLD_EVENTS.partitions))
    start = log.offsets_at([tp], since_ms)
    deadline = time.monotonic() + READ_SECONDS
    with closing(log.read(start, until_end=True)) as batches:  # type: ignore[type-var]
        for batch in batches:
            found += [record for record in batch if record.key == key]
            if time.monotonic() > deadline:
                return [record for record in found if record is not None], False
    return [record for record in found if record is not None], True


def _shown(record: StoredRecord, catalogue: Catalogue) -> Happening | None:
    try:
        event = decode(record.value, record.headers)
        check_route(event, record, catalogue=catalogue)
    except Rejected:
        # The dead letters have it.
        return None
    return Happening(
        at=moment(record.timestamp_ms),
        event=type(event).__name__,
        attempt=getattr(event, "attempt", 0),
        delivery=event.delivery if isinstance(event, RunEvent | FoldRequested) else None,
        position=f"{record.topic}:{record.partition}:{record.offset}",
        event_id=header(record.headers, "ce_id"),
        source=header(record.headers, "ce_source"),
        causation_id=header(record.headers, "ce_causationid"),
        data=event.model_dump(mode="json", exclude={"dataset"}, exclude_none=True),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/folds/{fold_id}/history",
        handle=get_history,
        summary="Read a fold's history",
        tag="folds",
        answers={200: Says("Its events, the oldest first.", History)},
        example={"path": {"fold_id": 1}},
    ),
)
