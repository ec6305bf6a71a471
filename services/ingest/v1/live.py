"""What happens to folds as it happens: server-sent events whose ids are places in the log, so that none is missed.

A client that comes back with the last id it saw gets what came since, after any while, from any gateway.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import orjson
from aiohttp import web
from pydantic import Field, TypeAdapter, ValidationError

from datarun.envelope import check_route, decode
from datarun.errors import LogUnavailable, Rejected
from datarun.events import FoldEvent
from datarun.intake import repeats
from datarun.log import StoredRecord
from datarun.projection.columns import moment
from datarun.topics import FOLD_EVENTS, Catalogue
from services.ingest.answers import UNDER_WAY
from services.ingest.refusals import detail
from services.ingest.v1.operation import Call, Operation, Says
from services.ingest.v1.places import Place, Word, wrong_place
from services.ingest.v1.tail import TAIL, Batch
from services.ingest.v1.values import Asked

EVENT_STREAM = "text/event-stream"
LAST_ID = "Last-Event-ID"
BEAT_SECONDS = 15.0
WRITE_SECONDS = 30.0
"""A client that takes nothing for so long is gone."""
_WORD: TypeAdapter[str] = TypeAdapter(Word)


class LiveQuery(Asked):
    """Where to begin without a Last-Event-ID."""

    start: Annotated[Literal["now", "beginning"], Field(description="Where to begin without a Last-Event-ID.")] = "now"


async def follow_events(call: Call[LiveQuery, None]) -> web.StreamResponse:
    """Send every event of folds, as it happens; a participant gets those of their own."""
    place = await _begin(call)
    stream = web.StreamResponse(headers={"Content-Type": EVENT_STREAM, "Cache-Control": "no-store"})
    async with call.request.app[TAIL].follow(place) as batches:
        call.request[UNDER_WAY] = True
        await stream.prepare(call.request)
        loop = asyncio.get_running_loop()
        # The id comes first, so that a client that is cut before any event knows where it was.
        await _write(stream, f"id: {place.word}\nretry: 2000\n\n".encode())
        beat_at = loop.time() + BEAT_SECONDS
        async for batch in batches:
            told = await _told(call, place, batch)
            if not told and loop.time() > beat_at:
                told = f"id: {place.word}\n: nothing new\n\n"
            if told:
                beat_at = loop.time() + BEAT_SECONDS
                await _write(stream, told.encode())
            if call.request.transport is None or call.request.transport.is_closing():
                break
    return stream


async def _begin(call: Call[LiveQuery, None]) -> Place:
    last = call.request.headers.get(LAST_ID)
    if last is not None:
        try:
            return Place.of(_WORD.validate_python(last))
        except ValidationError as error:
            raise wrong_place() from error
    if call.query.start == "beginning":
        return Place.beginning()
    try:
        return Place.behind(await call.gateway.log_end.of([call.gateway.catalogue.full_name(FOLD_EVENTS)]))
    except LogUnavailable as error:
        raise detail(503, "The log does not answer.", Retry_After="5") from error


async def _write(stream: web.StreamResponse, content: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await stream.write(content)


async def _told(call: Call[LiveQuery, None], place: Place, batch: Batch) -> str:
    """Move a place behind a batch, and return what is to be sent of it."""
    decoded = [(record, fold_event(record, call.gateway.catalogue)) for record in batch]
    own = await _own(call, {event.fold_id for _, event in decoded if event is not None})
    parts = []
    for record, event in decoded:
        place.pass_by(record)
        if event is not None and (own is None or event.fold_id in own):
            data = orjson.dumps(summary(record, event)).decode()
            parts.append(f"id: {place.word}\nevent: {type(event).__name__}\ndata: {data}\n\n")
    return "".join(parts)


async def _own(call: Call[LiveQuery, None], ids: set[int]) -> set[int] | None:
    only_of = call.only_of
    if only_of is None or not ids:
        return None
    return await call.gateway.database.run(lambda cursor: repeats.own(cursor, only_of, sorted(ids)))


def fold_event(record: StoredRecord, catalogue: Catalogue) -> FoldEvent | None:
    """Return what a record says of a fold, None if it says nothing."""
    try:
        event = decode(record.value, record.headers)
        check_route(event, record, catalogue=catalogue)
    except Rejected:
        return None
    return event if isinstance(event, FoldEvent) else None


def summary(record: StoredRecord, event: FoldEvent) -> dict[str, Any]:
    """Return what clients are told of an event: numbers and names, nothing that a submission said."""
    told = {
        "fold_id": event.fold_id,
        "attempt": event.attempt,
        "at": moment(record.timestamp_ms).isoformat(),
        "position": f"{record.topic}:{record.partition}:{record.offset}",
    }
    more = event.model_dump(mode="json", include={"delivery", "submission_id", "raw_data_id", "runner_id", "cause"})
    return told | more


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/events",
        handle=follow_events,
        summary="Follow what happens to folds",
        tag="cursors",
        query=LiveQuery,
        answers={
            200: Says("Server-sent events; `Last-Event-ID` goes on behind that event.", media_types=(EVENT_STREAM,))
        },
        takes_last_id=True,
        example={"query": {"start": "beginning"}},
    ),
)
