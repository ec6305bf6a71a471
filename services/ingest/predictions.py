"""Predictions: of some folds, or the new ones; what a client received to the last byte is not new to it any more."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import structlog
from aiohttp import web
from psycopg2.extensions import cursor as Cursor

from datarun.crashes import crash_point
from datarun.errors import BlobCorrupt, BlobMissing, DatabaseUnavailable
from datarun.events import PredictionsFetched
from datarun.intake import fetches, outbox
from datarun.intake.outbox import Queued
from datarun.lifecycle import State
from datarun.readmodel import queries
from datarun.readmodel.queries import KnownFold
from services.ingest import commands, legacy
from services.ingest.answers import ListAnswer
from services.ingest.arrays import Arrays
from services.ingest.auth import Account
from services.ingest.bodies import read_json
from services.ingest.delivery import Witness
from services.ingest.gateway import ACCOUNT, GATEWAY, Gateway
from services.ingest.portions import portions

MOST_NEW = 10_000
"""A client that has more new predictions than this gets the rest when it asks again."""
EXTEND_SECONDS = 20.0
RETRY_SECONDS = 2.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Fetch:
    """One answer under way, and whose it is."""

    fetch_id: uuid.UUID
    account: Account

    @property
    def view(self) -> str:
        """A participant's own, or the one that is everybody else's."""
        return self.account.only or ""


async def fetch_list(request: web.Request) -> web.StreamResponse:
    """POST testpredictions/list/: folds by their ids that the account may see, in any state, each once."""
    gateway = request.app[GATEWAY]
    body = await read_json(request)
    if "list_submission_fold" not in body:
        return web.Response(status=204)
    ids = commands.fetch(body)
    await gateway.reach(request)
    fetch = _Fetch(uuid.uuid4(), request[ACCOUNT])
    folds = await gateway.database.run(lambda cursor: queries.folds_by_ids(cursor, ids, only=fetch.account.only))
    shown = [fold for fold in folds if not fold.replaced]
    fresh = [(fold.fold_id, fold.attempt) for fold in shown if fold.state is State.TESTED and not fold.fetched]
    if fresh:
        await gateway.database.run(lambda cursor: fetches.claim(cursor, fresh, fetch.fetch_id, view=fetch.view))
    return await _deliver(request, shown, fetch)


async def fetch_new(request: web.Request) -> web.StreamResponse:
    """POST testpredictions/new/: tested folds that nobody fetched yet, claimed for this answer alone.

    A participant gets those of their own that they did not fetch yet, which takes nothing from others.
    """
    gateway = request.app[GATEWAY]
    raw_data_id = commands.fetch_new(await read_json(request))
    await gateway.reach(request)
    fetch = _Fetch(uuid.uuid4(), request[ACCOUNT])
    folds = await gateway.database.run(lambda cursor: _claim_new(cursor, raw_data_id, fetch))
    return await _deliver(request, folds, fetch)


def _claim_new(cursor: Cursor, raw_data_id: int | None, fetch: _Fetch) -> list[KnownFold]:
    folds = queries.new_folds(cursor, raw_data_id=raw_data_id, limit=MOST_NEW, only=fetch.account.only)
    claimed = fetches.claim(cursor, [(fold.fold_id, fold.attempt) for fold in folds], fetch.fetch_id, view=fetch.view)
    return [fold for fold in folds if fold.fold_id in claimed]


async def _deliver(request: web.Request, folds: Sequence[KnownFold], fetch: _Fetch) -> web.StreamResponse:
    gateway = request.app[GATEWAY]
    witness = Witness(request)
    try:
        answer, delivered = await _send(request, folds, fetch)
    except BaseException:
        witness.close()
        gateway.spawn(_free(gateway, fetch))
        raise
    gateway.spawn(_conclude(gateway, witness, fetch, delivered))
    return answer


async def _send(
    request: web.Request, folds: Sequence[KnownFold], fetch: _Fetch
) -> tuple[web.StreamResponse, list[int]]:
    gateway = request.app[GATEWAY]
    loop = asyncio.get_running_loop()
    answer = ListAnswer(request)
    delivered: list[int] = []
    extend_at = loop.time() + EXTEND_SECONDS
    for some in portions(folds):
        if loop.time() > extend_at:
            await gateway.database.run(lambda cursor: fetches.extend(cursor, fetch.fetch_id))
            extend_at = loop.time() + EXTEND_SECONDS
        items = await gateway.compute(lambda: _render(some, gateway.arrays))  # noqa: B023 - used at once
        await answer.add(b",".join(items.values()))
        delivered += items
    return await answer.finish(), delivered


def _render(folds: Sequence[KnownFold], arrays: Arrays) -> dict[int, bytes]:
    items = {}
    for fold in folds:
        try:
            items[fold.fold_id] = orjson.dumps(legacy.prediction(fold, arrays.encoded))
        except (BlobMissing, BlobCorrupt) as error:
            # The fold stays new, so that it is delivered once the store is whole again.
            log.error("predictions.unreadable", fold_id=fold.fold_id, reason=str(error))  # noqa: TRY400 - said in full
    return items


async def _conclude(gateway: Gateway, witness: Witness, fetch: _Fetch, delivered: Sequence[int]) -> None:
    try:
        arrived = await witness.saw_arrival()
    finally:
        witness.close()
    if not arrived:
        log.info("predictions.not_received", fetch_id=str(fetch.fetch_id), folds=len(delivered))
        await _free(gateway, fetch)
        return
    crash_point("gateway.before_fetched")
    deadline = asyncio.get_running_loop().time() + fetches.CLAIM_SECONDS / 2
    while True:
        try:
            queued = await gateway.database.run(lambda cursor: _finish(gateway, cursor, fetch, delivered))
        except DatabaseUnavailable:
            # Without a record of it the claim lapses and the predictions are delivered again.
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(RETRY_SECONDS)
        else:
            break
    for row in queued:
        gateway.relay.send(row)


def _finish(gateway: Gateway, cursor: Cursor, fetch: _Fetch, delivered: Sequence[int]) -> list[Queued]:
    pairs = fetches.finish(cursor, fetch.fetch_id, delivered)
    fetches.free(cursor, fetch.fetch_id)
    if fetch.view:
        # To all others they are as new as before.
        return []
    entries = [
        gateway.entry(
            PredictionsFetched(
                fold_id=fold_id, attempt=attempt, fetch_id=str(fetch.fetch_id), fetched_by=fetch.account.username
            )
        )
        for fold_id, attempt in pairs
    ]
    return outbox.add(cursor, entries) if entries else []


async def _free(gateway: Gateway, fetch: _Fetch) -> None:
    await gateway.database.run(lambda cursor: fetches.free(cursor, fetch.fetch_id))
