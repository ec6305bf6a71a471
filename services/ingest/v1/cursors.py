"""Cursors: each client reads what came of folds at its own pace; what it did not acknowledge it gets again.

A cursor is a place in the log of folds, so no record of what was delivered is kept, and none can be lost.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, NamedTuple

from aiohttp import web
from pydantic import Field

from datarun.envelope import check_route, decode
from datarun.errors import Rejected
from datarun.events import FoldCancelled, FoldFailed, FoldTested
from datarun.intake import cursors
from datarun.lifecycle import RANK_OF
from datarun.log import StoredRecord
from datarun.projection.evolve import NO_DELIVERY
from datarun.readmodel import listing
from datarun.readmodel.listing import ListedFold
from datarun.topics import Catalogue
from services.ingest.v1.folds import Fold, shown
from services.ingest.v1.inputs import Nothing
from services.ingest.v1.operation import Call, Operation, Says, answer
from services.ingest.v1.pages import DEFAULT_ITEMS, Limit
from services.ingest.v1.places import Place, Word
from services.ingest.v1.tail import TAIL
from services.ingest.v1.values import Asked, Told
from services.ingest.v1.waiting import asked_wait

READ_SECONDS = 4.0
PROJECTED_SECONDS = 1.0

End = FoldTested | FoldFailed | FoldCancelled


class NewQuery(Asked):
    """How much to fetch."""

    limit: Limit = DEFAULT_ITEMS


class News(Told):
    """Folds that have ended since the cursor's place, tested or not."""

    items: list[Fold]
    ack: Annotated[Word | None, Field(description="Acknowledge it once these are dealt with; null: nothing passed.")]
    more: Annotated[bool, Field(description="Whether to ask again at once, after acknowledging.")]


class Ack(Asked):
    """What was dealt with."""

    ack: Word


class _Ended(NamedTuple):
    record: StoredRecord
    event: End
    before: list[int]
    """The place before it."""


async def get_new(call: Call[NewQuery, None]) -> web.StreamResponse:
    """Return what ended since the cursor's place: the same again until it is acknowledged."""
    gateway, name = call.gateway, call.path["cursor"]
    known = await gateway.database.run(lambda cursor: cursors.find(cursor, call.account.username, name))
    place = Place(list(known)) if known else Place.beginning()
    began = list(place.offsets)
    wait = asked_wait(call.request)
    ended, more = await _read(call, place, wait=wait)
    for number, one in enumerate(ended):
        if not await gateway.projected.wait(one.record.position, seconds=PROJECTED_SECONDS):
            ended, place, more = ended[:number], Place(one.before), True
            break
    folds = await _folds(call, ended)
    news = News(items=folds, ack=place.word if place.offsets != began else None, more=more)
    return answer(news, headers={"Preference-Applied": f"wait={wait}"} if wait else None)


async def acknowledge(call: Call[Nothing, Ack]) -> web.StreamResponse:
    """Move a cursor on; acknowledging again, or something earlier, changes nothing."""
    place, name = Place.of(call.body.ack), call.path["cursor"]
    await call.gateway.database.run(lambda cursor: cursors.move(cursor, call.account.username, name, place.offsets))
    return web.Response(status=204)


async def forget_cursor(call: Call[Nothing, None]) -> web.StreamResponse:
    """Let a cursor begin anew: everything is new to it again."""
    name = call.path["cursor"]
    await call.gateway.database.run(lambda cursor: cursors.forget(cursor, call.account.username, name))
    return web.Response(status=204)


async def _read(call: Call[NewQuery, None], place: Place, *, wait: int) -> tuple[list[_Ended], bool]:
    """Move a place behind the next ends of folds and return them, and whether there may be more."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (wait or READ_SECONDS)
    ended: list[_Ended] = []
    async with call.request.app[TAIL].follow(place, until_end=not wait) as batches:
        async for batch in batches:
            for record in batch:
                if len(ended) == call.query.limit:
                    return ended, True
                event = _end(record, call.gateway.catalogue)
                if event is not None:
                    ended.append(_Ended(record, event, list(place.offsets)))
                place.pass_by(record)
            if wait and (ended or _is_gone(call.request)):
                return ended, False
            if loop.time() > deadline:
                return ended, not wait
    return ended, False


def _end(record: StoredRecord, catalogue: Catalogue) -> End | None:
    try:
        event = decode(record.value, record.headers)
        check_route(event, record, catalogue=catalogue)
    except Rejected:
        return None
    return event if isinstance(event, End) else None


async def _folds(call: Call[NewQuery, None], ended: list[_Ended]) -> list[Fold]:
    """Return the folds whose newest attempt ended so, each once."""
    latest = {one.event.fold_id: one.event for one in ended}
    folds = await call.gateway.database.run(lambda cursor: listing.find_folds(cursor, list(latest)))
    seen = [fold for fold in folds if call.only_of in (None, fold.owner)]
    return [Fold(**shown(fold)) for fold in seen if _is_how_it_ended(fold, latest[fold.fold_id])]


def _is_how_it_ended(fold: ListedFold, event: End) -> bool:
    delivery = NO_DELIVERY if isinstance(event, FoldCancelled) else event.delivery
    run = (fold.attempt, fold.run_attempt, fold.run_delivery, fold.run_rank)
    return run == (event.attempt, event.attempt, delivery, RANK_OF[type(event)])


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/cursors/{cursor}/new",
        handle=get_new,
        summary="Fetch what is new",
        tag="cursors",
        query=NewQuery,
        answers={
            200: Says(
                "Folds that ended, each in its newest attempt; with `Prefer: wait=30` as soon as there are any.",
                News,
                headers={"Preference-Applied": "The wait that was granted."},
            )
        },
        takes_wait=True,
        example={"path": {"cursor": "scores"}, "query": {"limit": 10}},
    ),
    Operation(
        method="POST",
        path="/v1/cursors/{cursor}/ack",
        handle=acknowledge,
        summary="Acknowledge what was fetched",
        tag="cursors",
        body=Ack,
        answers={204: Says("It is not new to this cursor any more.", media_types=())},
        example={"path": {"cursor": "scores"}, "body": {"ack": Place.beginning().word}},
    ),
    Operation(
        method="DELETE",
        path="/v1/cursors/{cursor}",
        handle=forget_cursor,
        summary="Begin a cursor anew",
        tag="cursors",
        answers={204: Says("Everything is new to it.", media_types=())},
        example={"path": {"cursor": "scores"}},
    ),
)
