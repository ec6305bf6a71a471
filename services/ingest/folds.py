"""Folds: request, list, look at one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from datarun.events import FoldRequested
from datarun.intake.claims import blob_name
from datarun.readmodel import queries
from datarun.readmodel.queries import KnownFold
from services.ingest import claiming, commands, legacy
from services.ingest.answers import ListAnswer, json_answer
from services.ingest.auth import Account
from services.ingest.bodies import MAX_BODY_BYTES, QUICK_BYTES, is_small, read_json
from services.ingest.claiming import Work
from services.ingest.commands import RequestFold
from services.ingest.decisions import unknown_dataset
from services.ingest.files import check_names
from services.ingest.forms import MAX_ID
from services.ingest.gateway import ACCOUNT, GATEWAY, POSITION, Gateway
from services.ingest.portions import portions
from services.ingest.refusals import not_found
from services.ingest.together import Ask, claim_together, may_join
from services.ingest.uploads import look_at_nothing, receive_files

PAGE = 500
LIGHT_PAGE = 5000


async def request_fold(request: web.Request) -> web.StreamResponse:
    """POST submissionfold/: refuse what is wrong, store the bytes, claim the attempt under its locks."""
    if is_small(request):
        return await _accept(request, await read_json(request))
    gateway = request.app[GATEWAY]
    # Indices may be long, and are no files.
    async with receive_files(request, gateway, look=look_at_nothing, most_rest=MAX_BODY_BYTES) as body:
        return await _accept(request, body)


async def _accept(request: web.Request, body: dict[str, Any]) -> web.Response:
    asked = commands.request_fold(body)
    event, position = await accept_fold(request.app[GATEWAY], asked, request[ACCOUNT])
    return json_answer(_accepted(asked, event), status=201, headers={POSITION: position})


async def accept_fold(
    gateway: Gateway, asked: RequestFold, account: Account, *, around: Callable[[Work], Work] | None = None
) -> tuple[FoldRequested, str]:
    """Accept a fold and return its request with its Datarun-Position; raises Refusal.

    `around` may add to the transaction that claims it, which is then its own.
    """
    if asked.files is not None:
        check_names(asked.files)
    if asked.raw_data is not None and not 1 <= asked.raw_data <= MAX_ID:
        raise unknown_dataset(asked.raw_data)
    if around is None and may_join(asked):
        event, rows = await gateway.gathering.join(Ask(asked, account), partial(claim_together, gateway))
        return event, await gateway.announce(rows)
    if asked.size <= QUICK_BYTES:
        work: Work = partial(claiming.claim_at_once, gateway, asked, account)
    else:
        # Megabytes take their time, and no database connection.
        seen = await gateway.database.run(partial(claiming.look, asked))
        stored = await gateway.compute(lambda: claiming.store(gateway, asked, seen, account))
        work = partial(claiming.claim, gateway, stored)
    (event, _), position = await gateway.accept(around(work) if around else work, lambda claim: claim[1])
    return event, position


def _accepted(asked: RequestFold, event: FoldRequested) -> dict[str, Any]:
    fold = KnownFold(
        fold_id=event.fold_id,
        attempt=event.attempt,
        submission_id=event.submission_id,
        submission_version=event.submission_version,
        raw_data_id=event.dataset.raw_data_id,
        priority=event.priority.value,
        train_is=blob_name(event.train_is),
        test_is=blob_name(event.test_is),
        task_id=event.task_id,
    )
    as_sent: dict[str | None, str] = {fold.train_is: asked.train_is, fold.test_is: asked.test_is}
    return legacy.submission_fold(fold, lambda name: as_sent.get(name))  # noqa: PLW0108 - `get` is overloaded


async def list_folds(request: web.Request) -> web.StreamResponse:
    """GET submissionfold/: every fold that the account may see, with all it has."""
    gateway = request.app[GATEWAY]
    return await _list(request, lambda fold: legacy.submission_fold(fold, gateway.arrays.if_readable), page=PAGE)


async def list_light(request: web.Request) -> web.StreamResponse:
    """GET submissionfold-light/: the same folds, in a word."""
    return await _list(request, legacy.light, page=LIGHT_PAGE)


async def _list(
    request: web.Request, render: Callable[[KnownFold], dict[str, Any]], *, page: int
) -> web.StreamResponse:
    gateway, only = request.app[GATEWAY], request[ACCOUNT].only
    await gateway.reach(request)
    answer = ListAnswer(request)
    after: int | None = 0
    while after is not None:
        found = await gateway.database.run(partial(queries.fold_page, after=after, limit=page, only=only))
        shown = [fold for fold in found.folds if not fold.replaced]
        for some in portions(shown):
            await answer.add(await gateway.compute(lambda: b",".join(orjson.dumps(render(fold)) for fold in some)))  # noqa: B023 - used at once
        after = found.after
    return await answer.finish()


async def show_fold(request: web.Request) -> web.StreamResponse:
    """GET submissionfold/<id>/."""
    gateway, only = request.app[GATEWAY], request[ACCOUNT].only
    fold_id = int(request.match_info["fold_id"])
    if fold_id > MAX_ID:
        raise not_found()
    await gateway.reach(request)
    found = await gateway.database.run(lambda cursor: queries.folds_by_ids(cursor, [fold_id], only=only))
    if not found:
        raise not_found()
    return json_answer(await gateway.compute(lambda: legacy.submission_fold(found[0], gateway.arrays.if_readable)))
